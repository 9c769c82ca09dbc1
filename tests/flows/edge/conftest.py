"""A network and a long run of it past the edge of stability, and dense reference values."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree


class Network(NamedTuple):
    value_fn: object
    params: object
    flat_loss: object
    unravel: object


@pytest.fixture(scope="session")
def network():
    """48 parameters, the tanh network of one hidden layer, 20 points of a sine."""
    keys = jax.random.split(jax.random.key(3), 4)
    x = jnp.linspace(-1.5, 1.5, 20)[:, None]
    y = jnp.sin(2.5 * x) + 0.3 * x
    params = {
        "w1": jax.random.normal(keys[2], (1, 16)),
        "b1": 0.3 * jax.random.normal(keys[1], (16,)),
        "w2": 0.4 * jax.random.normal(keys[3], (16, 1)),
    }

    def value_fn(p):
        return jnp.mean((jnp.tanh(x @ p["w1"] + p["b1"]) @ p["w2"] - y) ** 2)

    _, unravel = ravel_pytree(params)
    return Network(value_fn, params, lambda w: value_fn(unravel(w)), unravel)


class Run(NamedTuple):
    h: float
    params: object  # where the comparison starts
    points: np.ndarray  # the run from there, (802, 48)
    middle: np.ndarray  # (w[n-1] + 2 w[n] + w[n+1])/4 for n = 1 .. 800


@pytest.fixture(scope="session")
def run_past_the_edge(network):
    """Gradient descent by hand, from just before its first burst of oscillations."""
    h = 0.15
    gradient = jax.grad(network.flat_loss)
    step = lambda w, _: (w - h * gradient(w), w)
    start = ravel_pytree(network.params)[0]
    points = np.asarray(jax.jit(lambda w: jax.lax.scan(step, w, None, 1403)[1])(start))[600:1402]
    middle = (points[:-2] + 2 * points[1:-1] + points[2:]) / 4
    return Run(h, network.unravel(jnp.asarray(points[0])), points, middle)
