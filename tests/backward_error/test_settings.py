"""What the settings of methods may be given as, and what they are then."""

import jax.numpy as jnp
import numpy as np
import pytest
import sympy

from igr.backward_error import methods


def test_fractions_in_arrays_of_numpy_and_jax():
    """Read to the rounding of their dtype: a sixth is one in float32 too."""
    sixth = sympy.Rational(1, 6)
    A = [[0, 0, 0], [0.5, 0, 0], [-1, 2, 0]]
    exact = methods.runge_kutta(
        [[0, 0, 0], [sympy.Rational(1, 2), 0, 0], [-1, 2, 0]], [sixth, 4 * sixth, sixth]
    )
    for array in (np.array, np.float32, jnp.array, lambda x: jnp.array(x, jnp.float32)):
        found = methods.runge_kutta(array(A), array([1 / 6, 2 / 3, 1 / 6]))
        assert (found.A, found.b) == (exact.A, exact.b)
    root = 3**0.5 / 6
    gauss = np.array([[0.25, 0.25 - root], [0.25 + root, 0.25]], np.float32)
    found = methods.runge_kutta(gauss, np.array([0.5, 0.5], np.float32))
    np.testing.assert_allclose(np.array(found.A, float), gauss, rtol=1e-5)
    irrational = np.float32([1 / np.pi, 1 - 1 / np.pi])  # their sum is one to rounding
    assert sum(methods.runge_kutta(np.zeros((2, 2)), irrational).b) == 1
    with pytest.raises(ValueError, match="b must sum to 1"):
        methods.runge_kutta(np.zeros((2, 2)), np.float32([0.3, 0.701]))


def test_settings_are_numbers_of_any_kind():
    for beta in (0.9, np.float64(0.9), np.float32(0.9), jnp.asarray(0.9), jnp.float32(0.9)):
        assert methods.heavy_ball(beta).parameters == ()
        assert (
            methods.heavy_ball(beta).transfer == methods.heavy_ball(sympy.Rational(9, 10)).transfer
        )
    for beta in (0.9 + 0j, np.complex64(0.9), jnp.asarray(0.9 + 0j), "0.9", True):
        with pytest.raises(TypeError, match="beta must be a number or a sympy expression"):
            methods.heavy_ball(beta)
    for beta in (np.float64("nan"), np.float32("inf"), float("nan")):
        with pytest.raises(ValueError, match="beta must be a number in"):
            methods.heavy_ball(beta)
    for m in (3, np.int32(3), jnp.asarray(3), sympy.Integer(3)):
        assert methods.reshuffled_sgd(m) == methods.reshuffled_sgd(3)
    for m in (3.0, np.float32(3), jnp.asarray(3.0), True, 0, -1):
        with pytest.raises(ValueError, match="num_batches must be an integer of at least 1"):
            methods.reshuffled_sgd(m)
