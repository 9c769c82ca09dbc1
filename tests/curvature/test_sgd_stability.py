"""Theorem 2.4 and remark 2.5 against dense matrices and against SGD itself."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igr.curvature import sgd_stability


def dense(hessians, eta, batch_size):
    """The left side of the theorem, a and s, straight from their definitions."""
    n = len(hessians)
    mean = hessians.mean(0)
    covariance = np.mean([h @ h for h in hessians], 0) - mean @ mean
    step = np.eye(len(mean)) - eta * mean
    noise = eta**2 * (n - batch_size) / (batch_size * (n - 1)) * covariance
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    growth = np.linalg.eigvalsh(step @ step + noise)[-1]
    return growth, np.linalg.eigvalsh(mean)[-1], np.linalg.eigvalsh(root)[-1]


@pytest.mark.parametrize(
    ("name", "eta", "batch_size"),
    [("softmax_mlp", 0.3, 2), pytest.param("equinox_mlp", 0.2, 7, marks=pytest.mark.slow)],
)
def test_against_the_dense_matrices(case_named, name, eta, batch_size):
    case = case_named(name)
    found = sgd_stability(
        case.example_loss_fn, case.params, case.batch, eta, batch_size, chunk=6, tol=1e-7
    )
    growth, a, s = dense(case.example_hessians, eta, batch_size)
    n = len(case.example_hessians)
    np.testing.assert_allclose(found.growth, growth, rtol=1e-6)
    np.testing.assert_allclose(found.sharpness, a, rtol=1e-6)
    np.testing.assert_allclose(found.non_uniformity, s, rtol=1e-6)
    assert found.stable == (growth <= 1)
    assert found.sharpness_limit == pytest.approx(2 / eta)
    limit = np.inf if n == batch_size else np.sqrt(batch_size * (n - 1) / (n - batch_size)) / eta
    assert found.non_uniformity_limit == pytest.approx(limit)
    assert found.necessary == (0 <= a <= 2 / eta and s <= limit)
    assert found.converged


def interpolation(count=4, size=6):
    """Least squares with more parameters than examples: a minimum with no loss at all."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(count, size)))
    return lambda w, x: (x @ w) ** 2 / 2, jnp.zeros(size), x


@pytest.mark.slow
def test_flat_directions_leave_a_minimum_stable():
    """The identity on the flat directions makes the growth exactly one, not more."""
    loss, params, x = interpolation()
    hessians = np.einsum("ni,nj->nij", x, x)
    threshold = 2 / np.linalg.eigvalsh(hessians.mean(0))[-1]
    calm = sgd_stability(loss, params, x, 0.3 * threshold, 4)
    assert calm.stable
    assert calm.converged
    assert calm.growth == pytest.approx(1, abs=1e-6)
    wild = sgd_stability(loss, params, x, 1.1 * threshold, 4)
    assert not wild.stable
    assert not wild.necessary
    assert wild.growth == pytest.approx(dense(hessians, 1.1 * threshold, 4)[0], rel=1e-3)


@pytest.mark.slow
def test_a_slight_instability_among_many_flat_directions_is_found():
    """A random start has next to nothing of the one unstable direction of a thousand."""
    curvature = jnp.array([2.0, 2.0])
    found = sgd_stability(
        lambda w, c: c * w[0] ** 2 / 2, jnp.zeros(1000), curvature, 1.02, 2, tol=1e-4
    )
    assert found.growth == pytest.approx((1 - 1.02 * 2) ** 2, rel=1e-5)
    assert not found.stable


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_growth_bounds_the_mean_square_of_every_batch(batch_size):
    """E |w'|^2 over all batches, from the top eigenvector: the very matrix of the theorem."""
    loss, params, x = interpolation(4, 3)
    eta = 0.4
    found = sgd_stability(loss, params, x, eta, batch_size, tol=1e-9)
    hessians = np.einsum("ni,nj->nij", x, x)
    expected = 0
    batches = list(itertools.combinations(range(4), batch_size))
    for batch in batches:
        step = np.eye(3) - eta * hessians[list(batch)].mean(0)
        expected = expected + step.T @ step / len(batches)
    np.testing.assert_allclose(found.growth, np.linalg.eigvalsh(expected)[-1], rtol=1e-8)


@pytest.mark.slow
def test_equal_examples_have_no_non_uniformity():
    loss, params, x = interpolation()
    same = jnp.stack([x[0]] * 4)
    found = sgd_stability(loss, params, same, 0.1, 1)
    assert found.converged
    assert found.non_uniformity < 1e-5 * found.sharpness
    assert found.stable


@pytest.mark.slow
def test_a_traced_learning_rate():
    loss, params, x = interpolation()
    growth = jax.jit(lambda eta: sgd_stability(loss, params, x, eta, 2, tol=1e-8).growth)
    expected, _, _ = dense(np.einsum("ni,nj->nij", x, x), 0.5, 2)
    np.testing.assert_allclose(growth(0.5), expected, rtol=1e-7)


@pytest.mark.parametrize(
    ("eta", "batch_size", "message"),
    [
        (0.0, 1, "learning_rate must be positive and finite; got 0.0"),
        (float("inf"), 1, "learning_rate must be positive and finite; got inf"),
        (0.1, 0, "batch_size must be between 1 and 4, the number of examples; got 0"),
        (0.1, 5, "batch_size must be between 1 and 4, the number of examples; got 5"),
    ],
)
def test_bad_input(eta, batch_size, message):
    loss, params, x = interpolation()
    with pytest.raises(ValueError, match=message):
        sgd_stability(loss, params, x, eta, batch_size)


def test_a_single_example_is_refused():
    loss, params, x = interpolation()
    with pytest.raises(ValueError, match="batch must hold at least 2 examples; got 1"):
        sgd_stability(loss, params, x[:1], 0.1, 1)
