"""The flow against solutions known in closed form."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import igr


def test_flow_of_a_quadratic_is_exponential():
    eigenvalues = jnp.array([0.5, 3.0])
    equation = igr.modified_equation(igr.methods.gradient_descent(), 0)
    field = igr.vector_field(equation, lambda x: jnp.sum(eigenvalues * x**2) / 2, 0.1)
    ts = jnp.linspace(0.0, 2.0, 5)
    solution = igr.flow(field, jnp.ones(2), 2.0, ts=ts)
    assert isinstance(solution, diffrax.Solution)
    np.testing.assert_allclose(solution.ys, np.exp(-np.outer(ts, eigenvalues)), rtol=1e-8)


def test_gradient_descent_is_its_principal_flow_on_a_quadratic():
    """log(1 - h l)/(h l) on each eigenvector; the series to h^6 is within (h l)^7 of it."""
    h, eigenvalues = 0.1, jnp.array([0.1, 0.5])
    equation = igr.modified_equation(igr.methods.gradient_descent(), 6)
    field = igr.vector_field(equation, lambda x: jnp.sum(eigenvalues * x**2) / 2, h)
    exact = np.log(1 - h * np.asarray(eigenvalues)) / h
    np.testing.assert_allclose(jax.jit(field)(0.0, jnp.ones(2), None), exact, rtol=1e-9)


def test_only_the_end_by_default():
    solution = igr.flow(lambda t, p, args: {"x": -p["x"]}, {"x": jnp.array([1.0, 2.0])}, 1.0)
    np.testing.assert_allclose(solution.ys["x"], np.exp(-1.0) * np.array([[1.0, 2.0]]), rtol=1e-8)


def test_a_flow_that_leaves_the_finite_stops_and_says_when():
    ts = jnp.linspace(0.0, 200.0, 11)
    with pytest.warns(igr.FlowStopped, match=r"left the finite numbers.*t = 20$"):
        solution = igr.flow(lambda t, x, args: 10 * x, jnp.array([1.0]), 200.0, ts=ts)
    assert list(np.isfinite(solution.ts)) == [True] * 2 + [False] * 9


def test_a_blow_up_in_finite_time_stops_and_says_when():
    """x' = x^2 from 1 is 1/(1 - t)."""
    ts = jnp.array([0.5, 0.9, 1.1])
    with pytest.warns(igr.FlowStopped, match=r"as where a solution blows up.*t = 0\.9$"):
        solution = igr.flow(lambda t, x, args: x**2, jnp.array([1.0]), 2.0, ts=ts)
    np.testing.assert_allclose(solution.ys[:2, 0], [2.0, 10.0], rtol=1e-7)


@pytest.mark.slow
def test_running_out_of_steps_is_reported():
    with pytest.warns(igr.FlowStopped, match="the solver gave up.*max_steps"):
        igr.flow(lambda t, x, args: -x, jnp.array([1.0]), 1e3, max_steps=5)


def test_float32_stays_float32():
    solution = igr.flow(lambda t, x, args: -x, jnp.array([1.0], jnp.float32), 1.0)
    assert solution.ys.dtype == jnp.float32
    np.testing.assert_allclose(solution.ys[0], np.exp(-1.0), rtol=1e-4)


@pytest.mark.slow
def test_under_vmap():
    ends = jax.vmap(lambda x: igr.flow(lambda t, y, args: -y, x, 1.0).ys[0])(jnp.arange(3.0))
    np.testing.assert_allclose(ends, np.arange(3.0) * np.exp(-1), rtol=1e-8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"t1": -1.0}, "finite with t0 < t1"),
        ({"t1": float("inf")}, "t1 must be finite"),
        ({"t1": 1.0, "ts": jnp.array([0.5, 0.2])}, "finite, increasing times"),
        ({"t1": 1.0, "ts": jnp.array([0.5, 2.0])}, "must lie within"),
        ({"t1": 1.0, "rtol": -1.0}, "rtol must be positive"),
        ({"t1": 1.0, "max_steps": 0}, "max_steps must be at least 1"),
    ],
)
def test_bad_input(options, message):
    t1 = options.pop("t1")
    with pytest.raises(ValueError, match=message):
        igr.flow(lambda t, x, args: -x, jnp.array([1.0]), t1, **options)


@pytest.mark.slow
def test_a_trial_step_that_overflows_is_made_again():
    """tanh(y/2) = tanh(4) e^-t for y' = -sinh(y); a step of 3 goes to sinh(4462), infinity.

    The error of that step and the size of its end are both infinite, and their ratio no number.
    """
    solution = igr.flow(
        lambda t, y, args: -jnp.sinh(y), jnp.array([8.0]), 3.0, dt0=3.0, rtol=1e-7,
        solver=diffrax.Heun(),
    )  # fmt: skip
    assert solution.stats["num_rejected_steps"] > 0
    np.testing.assert_allclose(
        solution.ys[-1], [2 * np.arctanh(np.tanh(4) * np.exp(-3))], rtol=1e-5
    )


def test_an_event_with_an_adjoint_that_allows_none_names_both():
    stop = diffrax.Event(lambda t, y, args, **kwargs: y[0] - 0.5)
    with pytest.raises(ValueError, match=r"adjoint=BacksolveAdjoint allows no event: .* leave"):
        igr.flow(
            lambda t, y, args: -y, jnp.ones(1), 1.0, event=stop, adjoint=diffrax.BacksolveAdjoint()
        )
