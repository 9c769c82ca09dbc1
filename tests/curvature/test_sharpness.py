"""The sharpness: dense eigenvalues, jit, vmap, and warm starts along a run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from igr.curvature import sharpness


@pytest.mark.parametrize("name", ["softmax_mlp_float32", "equinox_mlp", "nnx_linear"])
def test_sharpness_is_the_extreme_eigenvalue_with_its_sign(case_named, name):
    case = case_named(name)
    found = sharpness(case.example_loss_fn, case.params, case.batch, tol=1e-4)
    values = np.linalg.eigvalsh(case.hessian)
    np.testing.assert_allclose(np.abs(found.value), np.abs(values).max(), rtol=2e-4)
    assert found.converged


@pytest.mark.parametrize(("which", "exact"), [("magnitude", -6), ("largest", 2), ("smallest", -6)])
def test_ends(which, exact):
    found = sharpness(lambda w: w[0] ** 2 - 3 * w[1] ** 2, jnp.ones(2), which=which)
    np.testing.assert_allclose(found.value, exact, rtol=1e-6)


def test_along_a_run_inside_jit_a_warm_start_spends_few_products(case_named):
    case = case_named("softmax_mlp")

    @jax.jit
    def run(params, vector):
        def step(carry, _):
            params, vector = carry
            params = jax.tree.map(
                lambda p, g: p - 0.05 * g, params, jax.grad(case.value_fn)(params)
            )
            found = sharpness(case.value_fn, params, initial=vector)
            return (params, found.vector), (found, params)

        return jax.lax.scan(step, (params, vector), length=3)[1]

    first = sharpness(case.value_fn, case.params)
    found, visited = run(case.params, first.vector)
    assert found.converged.all()
    assert first.products > found.products.max()
    for i in range(3):
        params = jax.tree.map(lambda a, i=i: a[i], visited)
        flat, unravel = ravel_pytree(params)
        dense = jax.hessian(lambda p, back=unravel: case.value_fn(back(p)))(flat)
        np.testing.assert_allclose(found.value[i], np.linalg.eigvalsh(dense)[-1], rtol=1e-3)


def test_under_vmap():
    curvatures = jnp.array([[1.0, 3.0], [-5.0, 2.0]])
    found = jax.vmap(
        lambda c: sharpness(lambda w: jnp.sum(c * w**2) / 2, jnp.ones(2)),
    )(curvatures)
    np.testing.assert_allclose(found.value, [3.0, -5.0], rtol=1e-6)


def test_nan_in_the_loss_is_not_called_converged():
    found = sharpness(lambda w: jnp.sum(w**2) * jnp.nan, jnp.ones(30))
    assert np.isnan(found.value)
    assert not found.converged
