"""Small networks of every library, each as (value_fn, params)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import flax.linen
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree

from tests.quick import quick


class Problem(NamedTuple):
    value_fn: Callable[[Any], jax.Array]
    params: Any


def _data():
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=(5, 3))), jnp.asarray(rng.normal(size=(5, 2)))


def _mean_square(outputs, y):
    return jnp.mean((outputs - y) ** 2)


def handwritten() -> Problem:
    x, y = _data()
    rng = np.random.default_rng(1)
    params = {
        "first": {"w": jnp.asarray(rng.normal(size=(3, 4))), "b": jnp.asarray(rng.normal(size=4))},
        "last": [jnp.asarray(rng.normal(size=(4, 2)))],
    }

    def value_fn(p):
        hidden = jnp.tanh(x @ p["first"]["w"] + p["first"]["b"])
        return _mean_square(hidden @ p["last"][0], y)

    return Problem(value_fn, params)


def linen() -> Problem:
    x, y = _data()
    model = flax.linen.Sequential(
        [flax.linen.Dense(4, param_dtype=float), jnp.tanh, flax.linen.Dense(2, param_dtype=float)]
    )
    params = model.init(jax.random.key(0), x)
    return Problem(lambda p: _mean_square(model.apply(p, x), y), params)


def flax_nnx() -> Problem:
    x, y = _data()

    class Network(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(3, 4, param_dtype=float, rngs=rngs)
            self.last = nnx.Linear(4, 2, param_dtype=float, rngs=rngs)

        def __call__(self, x):
            return self.last(jnp.tanh(self.first(x)))

    graph, params = nnx.split(Network(nnx.Rngs(0)))
    return Problem(lambda p: _mean_square(nnx.merge(graph, p)(x), y), params)


def equinox() -> Problem:
    x, y = _data()
    network = eqx.nn.MLP(3, 2, 4, 1, activation=jnp.tanh, key=jax.random.key(0))
    params, static = eqx.partition(network, eqx.is_array)
    return Problem(lambda p: _mean_square(jax.vmap(eqx.combine(p, static))(x), y), params)


def haiku() -> Problem:
    x, y = _data()
    network = hk.without_apply_rng(
        hk.transform(lambda x: hk.nets.MLP([4, 2], activation=jnp.tanh)(x))
    )
    params = network.init(jax.random.key(0), x)
    return Problem(lambda p: _mean_square(network.apply(p, x), y), params)


PROBLEMS = {f.__name__: f for f in (handwritten, linen, flax_nnx, equinox, haiku)}


@pytest.fixture(params=quick(sorted(PROBLEMS), "handwritten", "flax_nnx"), scope="session")
def problem(request) -> Problem:
    return PROBLEMS[request.param]()


@pytest.fixture(scope="session")
def network() -> Problem:
    return handwritten()


@pytest.fixture(scope="session")
def dense(network) -> tuple[np.ndarray, np.ndarray]:
    """The parameters of `network` as a vector, and the Hessian as a matrix."""
    theta, unravel = ravel_pytree(network.params)
    hessian = jax.jit(jax.hessian(lambda v: network.value_fn(unravel(v))))(theta)
    return np.asarray(theta), np.asarray(hessian)
