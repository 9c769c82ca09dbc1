"""The drift-adjusted rate against dense matrices, in chains and under jit."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from igr.transforms import drift_adjusted, scale_by_drift_adjusted_rate

_X = np.random.default_rng(0).normal(size=(6, 3))
PARAMS = {
    "w": jnp.asarray(np.random.default_rng(1).normal(size=(3, 4))),
    "v": jnp.asarray(np.linspace(-1.0, 1.0, 4)),
}


def _loss(p):
    """A ReLU network."""
    return jnp.mean((jax.nn.relu(_X @ p["w"]) @ p["v"] - _X[:, 0]) ** 2)


def _rate(power, scale):
    flat, unravel = ravel_pytree(PARAMS)
    loss = lambda w: _loss(unravel(w))
    g, hessian = map(np.asarray, jax.jit(lambda w: (jax.grad(loss)(w), jax.hessian(loss)(w)))(flat))
    return scale / (np.linalg.norm(hessian @ g) / np.linalg.norm(g)) ** power


@pytest.mark.parametrize(
    ("power", "scale"), [pytest.param(1.0, 2.0, marks=pytest.mark.slow), (0.5, 0.3)]
)
def test_the_step_is_that_of_the_dense_hessian(power, scale):
    optimizer = optax.chain(
        optax.scale(3.0), scale_by_drift_adjusted_rate(power, scale, 100.0), optax.scale(-1.0)
    )

    @jax.jit
    def step(p):
        gradient = jax.grad(_loss)(p)
        return gradient, *optimizer.update(gradient, optimizer.init(p), p, value_fn=_loss)

    gradient, updates, state = step(PARAMS)
    rate = _rate(power, scale)
    np.testing.assert_allclose(updates["w"], -3 * rate * gradient["w"], rtol=1e-6)
    np.testing.assert_allclose(state[1].learning_rate, rate, rtol=1e-6)


def test_it_is_cut_and_a_flat_loss_takes_the_largest():
    optimizer = drift_adjusted(max_learning_rate=0.01)

    @partial(jax.jit, static_argnums=0)
    def step(loss, p):
        gradient = jax.grad(loss)(p)
        return gradient, optimizer.update(gradient, optimizer.init(p), p, value_fn=loss)[0]

    gradient, updates = step(_loss, PARAMS)
    np.testing.assert_allclose(updates["v"], -0.01 * gradient["v"], rtol=1e-6)
    _, updates = step(lambda p: jnp.sum(p["v"]), PARAMS)
    np.testing.assert_allclose(updates["v"], -0.01 * np.ones(4), rtol=1e-6)


def test_injected_hyperparameters_and_low_precision():
    optimizer = optax.inject_hyperparams(drift_adjusted)(power=1.0, scale=0.5)
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    loss = lambda p: _loss(jax.tree.map(lambda x: x.astype(jnp.float32), p))
    state = optimizer.init(low)
    updates, state = jax.jit(lambda s, p: optimizer.update(jax.grad(loss)(p), s, p, value_fn=loss))(
        state, low
    )
    assert updates["w"].dtype == jnp.bfloat16
    assert bool(np.all(np.isfinite(updates["w"].astype(jnp.float32))))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"power": -1.0}, "power must be"),
        ({"scale": 0.0}, "scale must be"),
        ({"max_learning_rate": np.inf}, "max_learning_rate must be"),
    ],
)
def test_bad_input(arguments, match):
    with pytest.raises(ValueError, match=match):
        drift_adjusted(**arguments)
    optimizer = drift_adjusted()
    with pytest.raises(ValueError, match="value_fn"):
        optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS)
