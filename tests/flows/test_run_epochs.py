"""Real epochs of an optax optimizer over batches, against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from igr.flows import run_epochs

TARGETS = jnp.array([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.5]])
PARAMS = {"w": jnp.array([0.5, -0.5]), "step": jnp.array(4)}
ORDERS = jnp.array([[2, 0, 1], [1, 2, 0]])


def value_fn(p, target):
    return jnp.sum((p["w"] - target) ** 2) * jnp.sum(jnp.cosh(p["w"]))


def test_against_a_loop():
    """With momentum, whose state goes on from one epoch to the next."""
    optimizer = optax.sgd(0.03, momentum=0.6)
    found = run_epochs(optimizer, value_fn, PARAMS, TARGETS, ORDERS)
    p, momentum, visited = PARAMS["w"], np.zeros(2), [PARAMS["w"]]
    slope = jax.grad(lambda w, t: value_fn({"w": w}, t))
    for order in ORDERS:
        for k in order:
            momentum = 0.6 * momentum + slope(p, TARGETS[k])
            p = p - 0.03 * momentum
        visited.append(p)
    np.testing.assert_allclose(found["w"], visited, rtol=1e-12)
    assert int(found["step"]) == 4


def test_many_runs_at_once():
    optimizer = optax.sgd(0.03)
    orders = jnp.stack([ORDERS, ORDERS[:, ::-1]])
    together = jax.vmap(lambda o: run_epochs(optimizer, value_fn, PARAMS, TARGETS, o)["w"])(orders)
    alone = [run_epochs(optimizer, value_fn, PARAMS, TARGETS, o)["w"] for o in orders]
    np.testing.assert_allclose(together, alone, rtol=1e-12)


@pytest.mark.slow
def test_traced_rates_data_and_starts():
    """Under jit, vmap and grad: the numbers of a loop."""

    def after(rate, targets, w):
        start = {"w": w, "step": jnp.array(4)}
        return run_epochs(optax.sgd(rate), value_fn, start, targets, ORDERS[:1])["w"][-1]

    def looped(rate, targets, w):
        for k in ORDERS[0]:
            w = w - rate * jax.grad(lambda w, t: value_fn({"w": w}, t))(w, targets[k])
        return w

    rates = jnp.array([0.01, 0.02])
    found = jax.jit(jax.vmap(after, (0, None, None)))(rates, TARGETS, PARAMS["w"])
    expected = [looped(rate, TARGETS, PARAMS["w"]) for rate in rates]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    total = lambda run: jax.grad(lambda *a: jnp.sum(run(*a)), (0, 1, 2))(0.01, TARGETS, PARAMS["w"])
    for a, b in zip(total(after), total(looped), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)


def test_bad_input():
    optimizer = optax.sgd(0.1)
    with pytest.raises(ValueError, match=r"orders must lie in 0, \.\.\., 2; got \[-1, 3\]"):
        run_epochs(optimizer, value_fn, PARAMS, TARGETS, jnp.array([[0, 3, -1]]))
    for bad in (ORDERS[0], ORDERS[:, :2], ORDERS * 1.0):
        with pytest.raises(ValueError, match=r"integer array of shape \(epochs, 3\)"):
            run_epochs(optimizer, value_fn, PARAMS, TARGETS, bad)
    with pytest.raises(TypeError, match=r"optimizer must be an optax.GradientTransformation"):
        run_epochs(0.1, value_fn, PARAMS, TARGETS, ORDERS)
    with pytest.raises(TypeError, match="value_fn"):
        run_epochs(optimizer, 3.0, PARAMS, TARGETS, ORDERS)
