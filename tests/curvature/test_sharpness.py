"""The sharpness: dense eigenvalues, jit, vmap, and warm starts along a run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igr.curvature import sharpness


def test_sharpness_is_the_extreme_eigenvalue_with_its_sign(case_named):
    case = case_named("equinox_mlp")
    found = sharpness(case.example_loss_fn, case.params, case.batch, tol=1e-4)
    values = np.linalg.eigvalsh(case.hessian)
    np.testing.assert_allclose(found.value, values[np.abs(values).argmax()], rtol=2e-4)
    assert found.converged


def quadratic(w, curvatures):
    return jnp.sum(curvatures * w**2) / 2


@pytest.mark.parametrize(("which", "exact"), [("magnitude", -6), ("largest", 2), ("smallest", -6)])
def test_ends(which, exact):
    found = sharpness(quadratic, jnp.ones(2), jnp.array([[2.0, -6.0]]), which=which)
    np.testing.assert_allclose(found.value, exact, rtol=1e-6)


@pytest.mark.slow
def test_along_a_run_inside_jit_a_warm_start_spends_few_products():
    """On sum cosh(a w), turned: the Hessian moves, and its eigenvalues are a^2 cosh(a w)."""
    a = jnp.linspace(0.5, 3.0, 40)
    turn = jnp.asarray(np.linalg.qr(np.random.default_rng(0).normal(size=(40, 40)))[0])

    def value_fn(w):
        return jnp.sum(jnp.cosh(a * (turn @ w)))

    @jax.jit
    def run(w, vector):
        def step(carry, _):
            w, vector = carry
            w = w - 0.01 * jax.grad(value_fn)(w)
            found = sharpness(value_fn, w, initial=vector)
            return (w, found.vector), (found, w)

        return jax.lax.scan(step, (w, vector), length=3)[1]

    start = turn.T @ jnp.linspace(0.0, 0.7, 40)
    first = sharpness(value_fn, start)
    found, visited = run(start, first.vector)
    assert found.converged.all()
    assert first.products > found.products.max()
    exact = jnp.max(a**2 * jnp.cosh(a * (visited @ turn.T)), axis=1)
    np.testing.assert_allclose(found.value, exact, rtol=1e-3)


@pytest.mark.slow
def test_under_vmap():
    curvatures = jnp.array([[[1.0, 3.0]], [[-5.0, 2.0]]])
    found = jax.jit(jax.vmap(lambda c: sharpness(quadratic, jnp.ones(2), c)))(curvatures)
    np.testing.assert_allclose(found.value, [3.0, -5.0], rtol=1e-6)


def test_nan_in_the_loss_is_not_called_converged():
    found = sharpness(quadratic, jnp.ones(2), jnp.array([[jnp.nan, 1.0]]))
    assert np.isnan(found.value)
    assert not found.converged
