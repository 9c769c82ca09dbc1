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


def test_bad_input():
    optimizer = optax.sgd(0.1)
    for bad in (ORDERS[0], ORDERS[:, :2], ORDERS * 1.0):
        with pytest.raises(ValueError, match=r"integer array of shape \(epochs, 3\)"):
            run_epochs(optimizer, value_fn, PARAMS, TARGETS, bad)
    with pytest.raises(TypeError, match=r"optimizer is an optax.GradientTransformation"):
        run_epochs(0.1, value_fn, PARAMS, TARGETS, ORDERS)
    with pytest.raises(TypeError, match="value_fn"):
        run_epochs(optimizer, 3.0, PARAMS, TARGETS, ORDERS)
