"""Numbers far from one, starts that are not finite, features far from zero: the same answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igr.curvature import (
    fisher_product,
    hessian_product,
    sgd_stability,
    sharpness,
    spectral_density,
    top_eigenpairs,
    trace,
)
from igr.curvature.vectors import norm
from igr.diagnostics import (
    batch_sharpness,
    coherence,
    loss_surface_slope,
    modified_loss_share,
    stiffness,
)
from igr.per_example.inner_products import factored_gradients, squares

A = jnp.asarray(np.random.default_rng(0).normal(size=(30, 30)), jnp.float32)
A = A + A.T
W = jnp.zeros(30, jnp.float32)


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_eigenvalues_scale_with_the_loss_in_float32(scale):
    loss = lambda w: jnp.float32(scale) * (w @ (A @ w)) / 2
    expected = np.linalg.eigvalsh(np.asarray(A, float))
    largest = expected[np.argsort(-np.abs(expected))]
    found = sharpness(loss, W, tol=1e-5)
    assert found.converged
    np.testing.assert_allclose(found.value / np.float32(scale), largest[0], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_eigenpairs_scale_with_the_loss_in_float32(scale):
    loss = lambda w: jnp.float32(scale) * (w @ (A @ w)) / 2
    expected = np.linalg.eigvalsh(np.asarray(A, float))
    largest = expected[np.argsort(-np.abs(expected))]
    pairs = top_eigenpairs(hessian_product(loss, W), W, 3, tol=1e-5)
    np.testing.assert_allclose(pairs.values / np.float32(scale), largest[:3], rtol=1e-4)


@pytest.mark.slow
def test_a_subspace_that_is_not_finite_is_left():
    initial = jnp.stack([jnp.full(30, jnp.nan, jnp.float32), jnp.ones(30, jnp.float32)])
    found = top_eigenpairs(
        lambda v: A @ v, W, 2, method="subspace", initial=initial, tol=1e-4, max_products=3000
    )
    assert found.converged
    expected = np.linalg.eigvalsh(np.asarray(A, float))
    largest = expected[np.argsort(-np.abs(expected))][:2]
    np.testing.assert_allclose(found.values, largest, rtol=1e-3)


def test_norms_of_any_size():
    length = jax.jit(norm)
    for scale in (1e-30, 1e-20, 1.0, 1e30):
        x = {"a": np.float32([3 * scale]), "b": np.float32([[4 * scale]])}
        np.testing.assert_allclose(length(x) / np.float32(scale), 5, rtol=1e-6)
    assert length({"a": jnp.zeros(3), "b": jnp.zeros((0, 2))}) == 0
    assert np.isnan(length(np.array([np.nan, 1.0])))


def test_a_start_that_is_not_finite_is_left():
    loss = lambda w: w @ (A @ w) / 2
    again = sharpness(loss, W, initial=jnp.full(30, jnp.nan, jnp.float32))
    assert again.converged
    np.testing.assert_allclose(again.value, sharpness(loss, W).value, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("mean", [300.0, 2000.0, 20000.0])
@pytest.mark.parametrize("which", ["keys", "centred"])
def test_features_far_from_zero_over_several_positions(mean, which):
    rng = np.random.default_rng(1)
    x = np.float32(rng.normal(size=(4, 6, 48)) + mean)
    query, value = (np.float32(rng.normal(size=s) / 7) for s in ((4, 6, 48), (6,)))

    def keys(w, example):  # cotangents add up to nothing, activations have the mean
        x, query = example
        return jax.nn.softmax((x @ w) @ query[0]) @ value

    def centred(w, example):  # the other way round
        x, query = example
        return jnp.sum(jnp.tanh((query - jnp.mean(query, 0)) @ w) * x)

    loss = keys if which == "keys" else centred
    w = jnp.zeros((48, 48), jnp.float32)
    wide = jax.vmap(jax.grad(loss), (None, 0))(w.astype(float), (x.astype(float), query + 0.0))
    g = np.asarray(wide).reshape(4, -1)
    exact = np.sum(g**2, 1)
    formed = np.asarray(jax.vmap(jax.grad(loss), (None, 0))(w, (x, query)), float).reshape(4, -1)
    of_formed = np.max(np.abs(np.sum(formed**2, 1) / exact - 1))
    found = squares(factored_gradients(loss, w, (x, query)))
    assert np.max(np.abs(np.asarray(found, float) / exact - 1)) < 3 * of_formed + 1e-6
    assert np.all(found > 0)
    np.testing.assert_allclose(np.diag(stiffness(loss, w, (x, query))), 1, rtol=1e-3)


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_traces_and_slopes_scale_with_the_loss_in_float32(scale):
    c = jnp.float32(scale)
    ours, plain = (np.array(trace(lambda v, s=s: s * (A @ v), W)) for s in (c, jnp.float32(1)))
    np.testing.assert_allclose(ours / np.float32(scale), plain, rtol=1e-4)
    loss = lambda w: c * (1 + 3 * w[0] - 4 * w[1])
    np.testing.assert_allclose(loss_surface_slope(loss, W) / c, 5, rtol=1e-6)
    # E = c, |grad E| = 5 c, h = 0.1: the share is 0.625 c / (1 + 0.625 c)
    expected = 0.625 * float(c) / (1 + 0.625 * float(c))
    np.testing.assert_allclose(modified_loss_share(loss, W, 0.1).share, expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_densities_scale_with_the_loss_in_float32(scale):
    c = jnp.float32(scale)
    ours = spectral_density(lambda v: c * (A @ v), W, num_products=30)
    plain = spectral_density(lambda v: A @ v, W, num_products=30)
    np.testing.assert_allclose(ours.density * c, plain.density, rtol=0.02, atol=1e-4)
    np.testing.assert_allclose(ours.error * c, plain.error, rtol=0.02, atol=1e-4)


def test_a_root_of_a_spectrum_that_touches_zero():
    half = np.float32(np.random.default_rng(2).normal(size=(30, 4)))
    matrix = jnp.asarray(half @ half.T)  # 26 eigenvalues are zero
    found = trace(lambda v: matrix @ v, W, function=jnp.sqrt, num_probes=20)
    expected = np.sum(np.linalg.svd(half.astype(float), compute_uv=False))
    assert abs(found.value - expected) < 4 * found.error


@pytest.mark.parametrize("dtype", [jnp.bfloat16, pytest.param(jnp.float16, marks=pytest.mark.slow)])
def test_a_root_of_a_semidefinite_product_in_half_precision(dtype):
    """Its Ritz values below zero are of the rounding of the parameters, far above float32's."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(3, 8)).astype(dtype)
    product = fisher_product(lambda w, x: jnp.tanh(w @ x), jnp.zeros(8, dtype), jnp.asarray(x))
    found = trace(product, jnp.zeros(8, dtype), function=jnp.sqrt, num_probes=20)
    # The gradient of example i is x_i: F = X'X / 3.
    expected = np.sum(np.linalg.svd(x.astype(float), compute_uv=False)) / 3**0.5
    assert abs(found.value - expected) < 4 * found.error + 0.02 * expected


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_a_density_of_a_semidefinite_product_in_half_precision(dtype):
    x = jnp.asarray(np.random.default_rng(4).normal(size=(3, 8)), dtype)
    product = fisher_product(lambda w, x: jnp.tanh(w @ x), jnp.zeros(8, dtype), x)
    assert np.min(spectral_density(product, jnp.zeros(8, dtype)).nodes) >= 0


def test_a_logarithm_where_the_krylov_space_is_exhausted():
    """What follows has no weight, whatever the function is there."""
    found = trace(lambda v: 2 * v, jnp.zeros(4), function=jnp.log)
    np.testing.assert_allclose(found.value, 4 * np.log(2), rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_sums_over_examples_scale_with_the_loss_in_float32(scale):
    c = jnp.float32(scale)
    x = jnp.asarray(np.random.default_rng(3).normal(size=(6, 3)), jnp.float32)
    w = jnp.ones(3, jnp.float32)
    plain = lambda w, x: jnp.tanh(w @ x) ** 2 / 2
    ours = lambda w, x: c * plain(w, x)
    g, hessian, found_alpha = jax.jit(
        lambda w, x: (
            jax.vmap(jax.grad(plain), (None, 0))(w, x),
            jax.hessian(lambda w: jnp.mean(jax.vmap(plain, (None, 0))(w, x)))(w),
            coherence(ours, w, x).alpha,
        )
    )(w, x)
    g, hessian = np.asarray(g, float), np.asarray(hessian)
    alpha = np.sum(g.mean(0) ** 2) / np.mean(np.sum(g**2, 1))
    np.testing.assert_allclose(found_alpha, alpha, rtol=1e-5)
    mean = g.mean(0)
    along = mean @ hessian @ mean / (mean @ mean)
    found = batch_sharpness(ours, w, x, 6).value
    np.testing.assert_allclose(found / c, along, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_random_signs_and_stability_scale_with_the_loss_in_float32(scale):
    c = jnp.float32(scale)
    x = jnp.asarray(np.random.default_rng(3).normal(size=(6, 3)), jnp.float32)
    w = jnp.ones(3, jnp.float32)
    plain = lambda w, x: jnp.tanh(w @ x) ** 2 / 2
    ours = lambda w, x: c * plain(w, x)
    drawn = coherence(ours, w, x, method="random_signs", probes=4).alpha
    expected = coherence(plain, w, x, method="random_signs", probes=4).alpha
    np.testing.assert_allclose(drawn, expected, rtol=1e-5)
    hessian = np.asarray(jax.hessian(lambda w: jnp.mean(jax.vmap(plain, (None, 0))(w, x)))(w))
    found = sgd_stability(ours, w, x, jnp.float32(0.1) / c, 2, tol=1e-6)
    expected = sgd_stability(plain, w, x, jnp.float32(0.1), 2, tol=1e-6)
    assert found.converged
    np.testing.assert_allclose(found.growth, expected.growth, rtol=1e-4)
    np.testing.assert_allclose(found.sharpness / c, expected.sharpness, rtol=1e-4)
    np.testing.assert_allclose(found.sharpness / c, np.linalg.eigvalsh(hessian)[-1], rtol=1e-4)
    np.testing.assert_allclose(found.non_uniformity / c, expected.non_uniformity, rtol=1e-3)
