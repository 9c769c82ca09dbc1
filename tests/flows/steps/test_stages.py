"""Runge-Kutta steps as optax updates."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import igr
from igr.flows import optimizer_of

HALF = Fraction(1, 2)
MIDPOINT = igr.methods.runge_kutta([[HALF]], [1], name="implicit midpoint")
HEUN = igr.methods.runge_kutta([[0, 0], [1, 0]], [0.5, 0.5], name="Heun")
MATRIX = jnp.array([[2.0, 0.5], [0.5, 1.0]])


def quadratic(p):
    return p["x"] @ MATRIX @ p["x"] / 2


@pytest.mark.parametrize(
    ("method", "factor"),
    [
        (MIDPOINT, lambda z: np.linalg.solve(np.eye(2) + z / 2, np.eye(2) - z / 2)),
        (HEUN, lambda z: np.eye(2) - z + z @ z / 2),
        (igr.methods.usam(0.5), lambda z: np.eye(2) - z - z @ z / 2),
    ],
    ids=["implicit midpoint", "Heun", "usam"],
)
def test_steps_on_a_quadratic_are_the_matrix(method, factor):
    start = np.array([1.0, -2.0])
    got = igr.run(optimizer_of(method, 0.3), quadratic, {"x": jnp.asarray(start)}, 3)
    step = factor(0.3 * np.asarray(MATRIX))
    expected = np.linalg.matrix_power(step, 3) @ start
    np.testing.assert_allclose(got.last["x"], expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("method", "order"),
    [
        pytest.param(MIDPOINT, 1, marks=pytest.mark.slow),
        (MIDPOINT, 3),
        (HEUN, 2),
        pytest.param(igr.methods.usam(0.5), 1, marks=pytest.mark.slow),
        pytest.param(igr.methods.usam(0.5), 2, marks=pytest.mark.slow),
    ],
    ids=lambda x: getattr(x, "name", x),
)
def test_observed_order(polynomial, method, order):
    """The midpoint rule is symmetric: its field has even powers of h alone."""
    slope = igr.observed_order(method, *polynomial, order)
    assert abs(slope - (order + 2)) < 0.1, (slope, slope.hs, slope.errors)


def test_value_fn_is_asked_for():
    optimizer = optimizer_of(HEUN, 0.1)
    params = {"x": jnp.ones(2)}
    with pytest.raises(ValueError, match="update needs params and value_fn"):
        optimizer.update(jax.grad(quadratic)(params), optimizer.init(params), params)
