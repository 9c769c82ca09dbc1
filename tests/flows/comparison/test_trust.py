"""What says whether an expansion is to be trusted, against dense matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sympy import Symbol, exp, lambdify

import igr
from igr.backward_error.response import gradient_response
from igr.backward_error.stability import stability_limit

A = np.array([[2.0, 0.6, 0.1], [0.6, 1.0, -0.3], [0.1, -0.3, 0.5]])
START = jnp.array([1.0, -2.0, 0.5])


def value_fn(p):
    return p @ jnp.asarray(A) @ p / 2


@pytest.mark.slow
def test_sharpness_of_adam_is_that_of_the_preconditioned_hessian():
    h, eps = 0.01, 1e-3
    result = igr.compare(
        value_fn,
        START,
        h,
        20,
        (0,),
        igr.methods.adam(0.5, 0.9, eps),
        optimizer=optax.adam(h, 0.5, 0.9, eps),
        burn_in=27,  # 0.5^27 < 1e-8
        record_every=10,
    )
    nu = np.asarray(result.discrete.observed["nu"])
    count = 27 + np.asarray(result.step)
    for i in range(3):
        # The rule reads nu after its update in the step to come; 0.9^28 is not yet nothing.
        d = 1 / (np.sqrt(nu[i] / (1 - 0.9 ** (count[i] + 1))) + eps)
        dense = np.linalg.eigvalsh(np.sqrt(d)[:, None] * A * np.sqrt(d))
        assert result.sharpness[i] == pytest.approx(np.abs(dense).max(), rel=1e-2)
    assert result.stability_limit == pytest.approx(2 * 1.5 / 0.5)  # 2 (1 + b1)/(1 - b1)


@pytest.mark.slow
def test_sharpness_without_preconditioner_is_that_of_the_hessian():
    result = igr.compare(value_fn, START, 0.01, 2, (0,), record_every=2)
    dense = np.abs(np.linalg.eigvalsh(A)).max()
    np.testing.assert_allclose(result.sharpness, dense, rtol=1e-2)


@pytest.mark.slow
def test_correction_of_rmsprop_by_its_formula():
    """F1 = -(1/2r) [(1 + b)/(1 - b) ...]: Adam's with b1 = 0, eps inside the root."""
    b, e, h = 0.5, 0.05, 0.02
    result = igr.compare(
        value_fn, START, h, 4, (0,), igr.methods.rmsprop(b, e), record_every=4, sharpness=False
    )
    for i in range(2):
        g = A @ np.asarray(result.discrete.params[i])
        r, q = np.sqrt(g**2 + e), e / (g**2 + e)
        f0 = -g / r
        f1 = -(1 / (2 * r)) * (1 - (1 + b) / (1 - b) * (1 - q)) * (A @ (g / r))
        expected = h * np.linalg.norm(f1) / np.linalg.norm(f0)
        assert result.correction[i] == pytest.approx(expected, rel=1e-9)


def test_the_edge_of_stability_is_not_trusted():
    curvature = 100.0
    result = igr.compare(
        lambda p: curvature * jnp.sum(p**2) / 2, jnp.array([1e-3]), 0.0195, 4, (0,), record_every=2
    )
    assert (result.h_sharpness > 1.9).all()
    assert not result.trusted.any()
    assert "not to be trusted at 3 of 3" in str(result)


def test_limits_of_adaptive_methods():
    """Cohen et al. 2022: Adam's preconditioned sharpness stays below 38/h at b1 = 0.9."""
    adam = gradient_response(igr.methods.adam(0.9))
    assert stability_limit(adam.method) == pytest.approx(38)
    both = gradient_response(igr.methods.adam(0.9, keep=("mu", "nu")))
    assert stability_limit(both.method) == pytest.approx(38)
    sign = gradient_response(igr.methods.signsgd(0.25))
    assert stability_limit(sign.method) == pytest.approx(2)
    g = jnp.array([0.3, -0.7])
    slope = jax.vmap(jax.grad(lambda x: x / jnp.sqrt(x**2 + 0.25)))(g)

    found = lambdify([igr.methods.g], sign.preconditioner)(np.asarray(g))
    np.testing.assert_allclose(found, slope)


@pytest.mark.slow
def test_no_limit_where_memories_of_the_gradient_differ_by_coordinate():

    a, b, g, z = Symbol("a"), Symbol("b"), igr.methods.g, igr.methods.z
    method = igr.methods.elementwise(
        a / (1 + b**2), {"a": (g, 1 / (2 - exp(-z))), "b": (g, 1 / (3 - 2 * exp(-z)))}
    )
    assert gradient_response(method) is None
    result = igr.compare(value_fn, START, 0.01, 2, (0,), method, record_every=2)
    assert np.isnan(result.sharpness).all()
    assert np.isnan(result.stability_limit)
    assert result.trusted.all()
