"""Two losses that every test of the flows shares."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest
import sympy

X, Y = sympy.symbols("x y")
POLYNOMIAL = X**4 * Y / 3 + X**2 * Y**3 + X * Y - Y**5 / 5 + X**6 / 7 + X**2 + 2 * Y**2


class Case(NamedTuple):
    value_fn: object
    params: object


@pytest.fixture(scope="session")
def polynomial():
    function = sympy.lambdify((X, Y), POLYNOMIAL, "jax")
    return Case(lambda p: function(p["x"], p["y"]), {"x": jnp.array(0.7), "y": jnp.array(-0.4)})


@pytest.fixture(scope="session")
def tanh_network():
    keys = jax.random.split(jax.random.key(0), 5)
    params = {
        "hidden": (jax.random.normal(keys[0], (3, 4)), jax.random.normal(keys[1], (4,))),
        "out": jax.random.normal(keys[2], (4, 2)),
    }
    inputs, targets = jax.random.normal(keys[3], (6, 3)), jax.random.normal(keys[4], (6, 2))

    def value_fn(p):
        weights, bias = p["hidden"]
        return jnp.mean((jnp.tanh(inputs @ weights + bias) @ p["out"] - targets) ** 2)

    return Case(value_fn, params)
