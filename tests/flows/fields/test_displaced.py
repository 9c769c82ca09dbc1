"""Differences over the steps that a memory remembers, against sums by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

import igr
from igr.flows.fields.by_differences.displaced import displaced_field

H = 0.01


@pytest.mark.parametrize(
    ("method", "weights"),
    [
        (igr.methods.gradient_descent(), [1.0]),
        (igr.methods.heavy_ball(0.5), 0.5 ** np.arange(60)),
        (igr.methods.heavy_ball(0.9), 0.9 ** np.arange(400)),
    ],
)
def test_on_a_quadratic_it_is_the_sum_over_all_lags(method, weights):
    """F = -W x - h W (S + W/2) x, W the sum of the weights and S that of the weights by lag."""
    w, s = np.sum(weights), np.sum(np.arange(len(weights)) * weights)
    found = displaced_field(method, lambda x: x**2 / 2, H)(0.0, jnp.array(2.0), None)
    np.testing.assert_allclose(found, -2 * (w + H * w * (s + w / 2)), rtol=1e-8)


def test_it_sees_a_kink_that_derivatives_do_not():
    """|x| just past its kink: of the step before the gradient was -1 and is +1 here."""
    found = displaced_field(igr.methods.gradient_descent(), jnp.abs, H)(0.0, jnp.array(H / 2), None)
    # d here -1, d a step on +1: (3/2)(-1) - (1/2)(+1)
    assert float(found) == -2.0


def test_what_it_refuses():
    with pytest.raises(ValueError, match="differences are known for methods without memory"):
        displaced_field(igr.methods.adam(), jnp.abs, H)
