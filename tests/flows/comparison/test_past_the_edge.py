"""Named flows past the edge, against dense matrices and the flows followed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import igr
from igr.flows import central_flow, two_phase_flow

H, STEPS, EVERY = 0.5, 20, 10


def valley(w):
    """Gets narrower along y, past 2/h at 1 + y^2 = 4."""
    return w[0] ** 2 * (1 + w[1] ** 2) / 2 + (w[1] - 3) ** 2 / 40


START = jnp.array([0.05, 1.9])


@pytest.fixture(scope="module")
def seen():
    flows = (0, "two-phase", "central")
    return igr.compare(
        valley, START, H, STEPS, flows=flows, record_every=EVERY, directions=1, sharpness=False
    )


@pytest.fixture(scope="module")
def by_hand():
    points = [np.array(START)]
    gradient = lambda w: np.array([w[0] * (1 + w[1] ** 2), w[0] ** 2 * w[1] + (w[1] - 3) / 20])
    for _ in range(STEPS + 2):
        points.append(points[-1] - H * gradient(points[-1]))
    return np.array(points)


@pytest.mark.slow
def test_the_run_is_seen_in_the_middle_of_its_swing(seen, by_hand):
    n = np.array([0, 10, 20])
    np.testing.assert_array_equal(seen.step, n + 1)
    np.testing.assert_allclose(seen.time, H * (n + 1))
    a, b, c = by_hand[n], by_hand[n + 1], by_hand[n + 2]
    np.testing.assert_allclose(seen.midpoints, (a + 2 * b + c) / 4, rtol=1e-10)
    half = np.linalg.norm(a - 2 * b + c, axis=1) / 4
    np.testing.assert_allclose(seen.amplitude["run"], half, rtol=1e-10)
    e = [valley(w.T) for w in (a, b, c)]
    np.testing.assert_allclose(seen.mean_value["run"], (e[0] + 2 * e[1] + e[2]) / 4, rtol=1e-10)
    dense = [np.linalg.eigvalsh(jax.hessian(valley)(w))[-1] for w in jnp.asarray(seen.midpoints)]
    np.testing.assert_allclose(seen.eigenvalues["run"][:, 0], dense, rtol=1e-2)
    np.testing.assert_allclose(seen.discrete.params, a, rtol=1e-10)


@pytest.mark.slow
def test_flows_past_the_edge_are_those_of_their_own_functions(seen):
    two = two_phase_flow(
        igr.methods.gradient_descent(), valley, START, H, H * (STEPS + 1),
        record_every=EVERY, directions=1,
    )  # fmt: skip
    first = jnp.asarray(seen.midpoints[0])
    middle = central_flow(valley, first, H, H * STEPS, 1, record_every=EVERY)
    for name, sol in (("two-phase", two), ("central", middle)):
        np.testing.assert_allclose(seen.flows[name], sol.ys, rtol=1e-8)
        apart = np.linalg.norm(np.asarray(sol.ys) - seen.midpoints, axis=1)
        np.testing.assert_allclose(seen.distance[name], apart, rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(seen.amplitude[name], sol.amplitude, rtol=1e-8)
        np.testing.assert_allclose(seen.mean_value[name], sol.value, rtol=1e-8)
    assert seen.distance["two-phase"][-1] < 0.1 * seen.distance[0][-1]
    assert "amplitude" in str(seen)


@pytest.mark.slow
def test_other_flows_are_averaged_like_the_run(seen):
    """Of gradient flow (y(t-h) + 2 y(t) + y(t+h))/4, here by small steps of Runge and Kutta."""
    g = jax.grad(valley)

    def step(w, _):
        dt = H / 50
        k1 = g(w)
        k2 = g(w - dt / 2 * k1)
        k3 = g(w - dt / 2 * k2)
        k4 = g(w - dt * k3)
        return w - dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4), w

    y = np.asarray(jax.lax.scan(step, START, length=50 * (STEPS + 2) + 1)[1])[::50]
    n = np.array([0, 10, 20])
    middle = (y[n] + 2 * y[n + 1] + y[n + 2]) / 4
    np.testing.assert_allclose(seen.flows[0], middle, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flows": (0, "centre")}, "flows must be counts or 'differences', 'two-phase', 'central'"),
        ({"flows": ()}, "flows names at least one"),
        ({"flows": (0, 0)}, "flows must name each flow once"),
        ({"flows": "central"}, "flows must be a sequence"),
        ({"flows": (0,), "orders": (1,)}, "give one of them"),
        ({"flows": ("central",), "directions": 3}, "at most the number of parameters, 2; got 3"),
        ({"flows": ("central",), "directions": 0}, "directions must be at least 1"),
        ({"flows": ("central",), "method": igr.methods.adam()}, "'central' is for gradient"),
        (
            {"flows": ("two-phase",), "method": igr.methods.heavy_ball(0.5), "start_up": "shift"},
            "'two-phase' must have start_up",
        ),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        igr.compare(valley, START, H, 4, **change)


@pytest.mark.slow
def test_two_phases_of_a_step_that_falls():
    """Both phases go by the schedule of the run, which they end beside."""
    seen = igr.compare(
        lambda w: jnp.sum(w**2 - w**4 / 2 + w**6 / 6), jnp.array([0.1]), 1.05, 30,
        flows=("two-phase",), optimizer=lambda h: optax.sgd(optax.cosine_decay_schedule(h, 200)),
    )  # fmt: skip
    assert not seen.failures
    assert seen.distance["two-phase"].max() < 0.02 * seen.travelled.max()
    np.testing.assert_allclose(seen.amplitude["two-phase"], seen.amplitude["run"], rtol=0.1)


def test_a_flow_that_fails_does_not_cost_the_others():
    """A loss with a gradient and no derivative of it: its slope has no rule in either mode."""

    @jax.custom_vjp
    def slope(x):
        return x

    def refuse(_, c):
        raise TypeError("slope has no derivative")

    slope.defvjp(lambda x: (x, None), refuse)

    @jax.custom_vjp
    def square(x):
        return x**2 / 2

    square.defvjp(lambda x: (x**2 / 2, x), lambda x, c: (c * slope(x),))
    seen = igr.compare(lambda x: jnp.sum(square(x)), jnp.array([1.0]), 0.1, 4, (0, 1))
    np.testing.assert_allclose(seen.flows[0][-1], np.exp(-0.4), rtol=1e-8)
    assert np.isinf(seen.distance[1]).all()
    assert "could not be followed, NotImplementedError" in str(seen)
    assert set(seen.failures) >= {1, "remainder", "correction"}
    assert np.isnan(seen.remainder).all()
    assert not seen.trusted.any()
