"""The central flow against a dense one in small steps, against dense matrices and real runs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import igr
from igr.flows import central_flow


def _valley(w):
    """Sharper along x the further down y goes: a critical direction with a slope along the edge."""
    return w[0] ** 2 * (1 + w[1] ** 2) / 2 + w[2] ** 2 / 2 - 0.2 * w[1] + 0.02 * w[1] ** 2


def _dense(loss, w, h, t1, decay=None, eps=1e-8, nu=None, cuts=400):
    """One critical direction, by Euler steps of h/cuts and dense derivatives.

    The condition on the eigenvalue alone: d lambda/dt = 0 at 2/h gives the mean square x of the
    oscillation along v, and a little of 2/h - lambda is made good a step.
    """
    gradient, hessian = jax.grad(loss), jax.hessian(loss)
    dt, rate = h / cuts, 0.0 if decay is None else -np.log(decay) / h

    @jax.jit
    def step(_, carry):
        w, nu = carry
        p = jnp.ones_like(w) if decay is None else jnp.sqrt(nu + eps)
        g, matrix = gradient(w), hessian(w)
        values, vectors = jnp.linalg.eigh(matrix / jnp.sqrt(p) / jnp.sqrt(p)[:, None])
        top, v = values[-1], vectors[:, -1] / jnp.sqrt(p)
        slope = jax.grad(lambda y: v @ hessian(y) @ v)(w)
        swung = (matrix @ v) ** 2
        dp = rate * (g**2 - nu) / (2 * p)
        free = -slope @ (g / p) - top * v**2 @ dp
        brake = slope @ (slope / p) / 2 + top * v**2 @ (rate * swung / (2 * p))
        x = jnp.maximum(0, (top - 2 / h + dt * free) / (dt * brake))
        w = w - dt * (g + x * slope / 2) / p
        return w, nu + dt * rate * (g**2 + x * swung - nu)

    start = (w, jnp.zeros_like(w) if nu is None else nu)
    return jax.lax.fori_loop(0, round(t1 / h) * cuts, step, start)


@pytest.mark.slow
def test_one_critical_direction_against_small_steps():
    h, w = 0.5, jnp.array([0.02, 1.6, 0.3])
    sol = central_flow(_valley, w, h, 40 * h, 2, record_every=20)
    assert bool(sol.solved.all())
    assert not bool(sol.crowded.any())
    assert float(sol.amplitude[-1]) > 0.1
    for i in (1, 2):
        reference, _ = _dense(_valley, w, h, 20 * i * h)
        np.testing.assert_allclose(sol.ys[i], reference, atol=2e-3)


@pytest.mark.slow
def test_the_mean_square_of_the_oscillation():
    """Down the valley at its edge: the oscillation is what holds y, and 1 + y^2 = 2/h in the end.

    Where y stands still, 0.2 = 0.04 y + x y with x the mean square; the run's is the same.
    """
    h = 0.5
    sol = central_flow(_valley, jnp.array([0.01, 1.0, 0.0]), h, 400 * h, 2, record_every=200)
    edge = np.sqrt(2 / h - 1)
    np.testing.assert_allclose(sol.ys[-1], [0.0, edge, 0.0], atol=1e-3)
    mean_square = 0.2 / edge - 0.04
    np.testing.assert_allclose(sol.covariance[-1][0, 0], mean_square, rtol=1e-3)
    np.testing.assert_allclose(sol.amplitude[-1], np.sqrt(mean_square), rtol=1e-3)
    expected = _valley(sol.ys[-1]) + mean_square * 2 / h / 2
    np.testing.assert_allclose(sol.value[-1], expected, rtol=1e-4)
    # The same oscillation of the run itself, which an exact start keeps up for a while.
    start = jnp.array([np.sqrt(mean_square), edge, 0.0])
    run = igr.run(optax.sgd(h), _valley, start, 200)
    np.testing.assert_allclose(jnp.mean(run.params[:, 0] ** 2), mean_square, rtol=1e-2)
    np.testing.assert_allclose(jnp.mean(run.value), sol.value[-1], rtol=1e-2)


@pytest.mark.slow
def test_rmsprop_against_small_steps():
    h, decay = 0.02, 0.99
    w = jnp.array([0.003, 1.0, 0.02])
    nu = jnp.array([0.02, 0.05, 0.1])
    settings = {"decay": decay, "eps": 1e-6, "nu": nu}
    sol = central_flow(_valley, w, h, 200 * h, 2, record_every=100, **settings)
    assert bool(sol.solved.all())
    # Critical at some time, or this would test little.
    assert float(np.max(sol.covariance[:, 0, 0])) > 1e-6
    for i in (1, 2):
        reference, moment = _dense(_valley, w, h, 100 * i * h, decay, 1e-6, nu, cuts=100)
        np.testing.assert_allclose(sol.ys[i], reference, atol=1e-2)
        np.testing.assert_allclose(sol.nu[i], moment, rtol=0.05, atol=1e-4)


@pytest.mark.slow
def test_a_network_stays_at_its_edge(network, run_past_the_edge):
    """Dense eigenvalues: as reported, and h times the largest at most 2."""
    h, _, _, middle = run_past_the_edge
    start = network.unravel(jnp.asarray(middle[100]))
    sol = central_flow(network.value_fn, start, h, 200 * h, 3, record_every=50)
    assert bool(sol.solved.all())
    assert not bool(sol.crowded.any())
    for i in range(len(sol.ts)):
        flat = jax.flatten_util.ravel_pytree(jax.tree.map(lambda x, i=i: x[i], sol.ys))[0]
        values = np.linalg.eigvalsh(jax.hessian(network.flat_loss)(flat))[::-1]
        np.testing.assert_allclose(sol.eigenvalues[i], values[:3], rtol=1e-3, atol=1e-3)
        if i:
            assert h * values[0] < 2.01


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"h": -1.0}, "h must be positive"),
        ({"t1": 1.3}, "whole number of steps"),
        ({"directions": 0}, "directions must be at least 1"),
        ({"directions": 4}, "number of parameters, 3"),
        ({"decay": 1.0}, "decay must be in"),
        ({"nu": jnp.ones(3)}, "give its decay"),
        ({"decay": 0.9, "nu": jnp.ones(2)}, "nu must be like params"),
        ({"value_fn": lambda w: w}, "scalar"),
    ],
)
def test_bad_input(change, match):
    given = {"value_fn": _valley, "params": jnp.ones(3), "h": 0.5, "t1": 2.0} | change
    with pytest.raises(ValueError, match=match):
        central_flow(**given)


@pytest.mark.slow
def test_past_the_edge_of_a_quadratic_there_is_none():
    """Its sharpness is the same everywhere: no oscillation can lower it."""
    sol = central_flow(lambda w: 3 * jnp.sum(w**2) / 2, jnp.ones(2), 1.0, 3.0, 1)
    assert not bool(sol.solved[1:].any())
