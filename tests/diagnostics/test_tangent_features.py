"""Spectrum, alignment, feature covariance, updates and complexity against the dense features."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igr.diagnostics import (
    KernelTooLargeError,
    feature_covariance_eigenpairs,
    function_space_update,
    path_complexity,
    rademacher_bound,
    rademacher_bound_of_path,
    tangent_kernel_alignment,
    tangent_kernel_spectrum,
    tangent_kernel_trace_estimate,
)

linear = lambda w, x: w @ x


def apply_fn(p, x):
    return jnp.tanh(x @ p["in"]) @ p["out"]


def loss_of_outputs(f):
    return jnp.mean(jnp.sum(jnp.log(jnp.cosh(f - 1)), axis=1))


class Case(NamedTuple):
    params: dict
    x: np.ndarray
    features: np.ndarray  # (n q, parameters), in the order of the leaves


def features_of(params, x):
    """Gradients of all outputs, by numpy."""
    w, out = np.asarray(params["in"]), np.asarray(params["out"])
    hidden = np.tanh(x @ w)
    by_in = np.einsum("nd,nh,hq->nqdh", x, 1 - hidden**2, out)
    by_out = np.einsum("nh,qo->nqho", hidden, np.eye(out.shape[1]))
    rows = len(x) * out.shape[1]
    return np.concatenate([by_in.reshape(rows, -1), by_out.reshape(rows, -1)], axis=1)


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    params = {
        "in": jnp.asarray(rng.normal(size=(2, 4))),
        "out": jnp.asarray(rng.normal(size=(4, 2))),
    }
    x = rng.normal(size=(5, 2))
    return Case(params, x, features_of(params, x))


def test_spectrum(case):
    found = jax.jit(tangent_kernel_spectrum, static_argnums=0)(apply_fn, case.params, case.x)
    values = np.linalg.svd(case.features, compute_uv=False) ** 2
    np.testing.assert_allclose(found.eigenvalues, values, rtol=1e-9)
    assert found.rank == np.linalg.matrix_rank(case.features) == 10
    shares = values / values.sum()
    np.testing.assert_allclose(found.effective_rank, np.exp(-np.sum(shares * np.log(shares))))
    np.testing.assert_allclose(found.participation_ratio, values.sum() ** 2 / np.sum(values**2))


def test_spectrum_by_hand():
    """K = x x' times the identity of 3 outputs: three equal eigenvalues and the rest zero."""
    x = jnp.array([[1.0, 2.0], [2.0, 4.0], [-1.0, -2.0]])
    spectrum = jax.jit(lambda x: tangent_kernel_spectrum(linear, jnp.ones((3, 2)), x))
    found = spectrum(x)
    np.testing.assert_allclose(found.eigenvalues, [30.0] * 3 + [0.0] * 6)
    assert found.rank == 3
    np.testing.assert_allclose([found.effective_rank, found.participation_ratio], 3)
    nothing = spectrum(0 * x)
    assert nothing.rank == 0
    assert np.isnan(nothing.effective_rank)
    assert np.isnan(nothing.participation_ratio)
    unknown = spectrum(np.nan * x)
    assert np.all(np.isnan(unknown.eigenvalues))


@pytest.mark.parametrize("centered", [pytest.param(False, marks=pytest.mark.slow), True])
def test_alignment(case, centered):
    y = np.random.default_rng(2).normal(size=(5, 2))
    features, targets = case.features.reshape(5, 2, -1), y
    if centered:
        features, targets = features - features.mean(axis=0), y - y.mean(axis=0)
    rows = features.reshape(10, -1)
    kernel, ideal = rows @ rows.T, np.outer(targets, targets)
    expected = np.sum(kernel * ideal) / np.linalg.norm(kernel) / np.linalg.norm(ideal)
    align = jax.jit(tangent_kernel_alignment, static_argnums=0, static_argnames="centered")
    found = align(apply_fn, case.params, case.x, y, centered=centered)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.slow
def test_alignment_with_labels_and_by_hand(case):
    labels = np.array([0, 1, 1, 0, 1])
    of_labels = tangent_kernel_alignment(apply_fn, case.params, case.x, labels)
    one_hot = tangent_kernel_alignment(apply_fn, case.params, case.x, np.eye(2)[labels])
    assert of_labels == one_hot
    assert np.isnan(tangent_kernel_alignment(apply_fn, case.params, case.x, labels + 1))
    scalar, w = lambda w, x: w @ x, jnp.ones(2)
    orthonormal = jnp.eye(2)  # K is the identity: it favours no direction
    np.testing.assert_allclose(
        tangent_kernel_alignment(scalar, w, orthonormal, np.array([3.0, 1.0])), 1 / np.sqrt(2)
    )
    # what is the same for all examples is gone once centered
    same = tangent_kernel_alignment(scalar, w, orthonormal, np.array([3.0, 1.0]), centered=True)
    np.testing.assert_allclose(same, 1)


def test_feature_covariance(case):
    k = 4
    find = jax.jit(feature_covariance_eigenpairs, static_argnums=(0, 3))
    found = find(apply_fn, {**case.params, "steps": jnp.arange(2)}, case.x, k)
    assert found.vectors.pop("steps") is None
    covariance = case.features.T @ case.features / 5
    vectors = np.concatenate([v.reshape(k, -1) for v in jax.tree.leaves(found.vectors)], axis=1)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(k), atol=1e-10)
    np.testing.assert_allclose(covariance @ vectors.T, vectors.T * found.values, atol=1e-10)
    np.testing.assert_allclose(found.values, np.linalg.eigvalsh(covariance)[::-1][:k])
    functions = vectors @ case.features.T / np.sqrt(found.values)[:, None]
    np.testing.assert_allclose(found.functions.reshape(k, -1), functions, atol=1e-10)
    np.testing.assert_allclose(np.sum(functions**2, axis=1) / 5, 1)


@pytest.mark.slow
def test_directions_that_are_not_there_are_zero():
    found = feature_covariance_eigenpairs(linear, jnp.ones((1, 2)), jnp.ones((3, 2)), 3)
    np.testing.assert_allclose(found.values, [2, 0, 0], atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=(1, 2)), [1, 0, 0])


def test_function_update_is_lemma_4_2(case):
    """By the covariance itself: v_j from a dense solver, u_j and df_j as the lemma writes them."""
    rate = 0.1
    found = jax.jit(function_space_update, static_argnums=(0, 3))(
        apply_fn, case.params, case.x, loss_of_outputs, rate
    )
    values, vectors = np.linalg.eigh(case.features.T @ case.features / 5)
    values, vectors = values[::-1][:10], vectors[:, ::-1][:, :10]
    u = case.features @ vectors / np.sqrt(values)
    outputs = np.tanh(case.x @ case.params["in"]) @ case.params["out"]
    slope = np.tanh(outputs - 1).reshape(-1) / 5
    coefficients = -rate * values * (u.T @ slope)
    np.testing.assert_allclose(found.eigenvalues, values, rtol=1e-8)
    np.testing.assert_allclose(abs(found.coefficients), abs(coefficients), rtol=1e-5)
    np.testing.assert_allclose(found.update.reshape(-1), u @ coefficients, rtol=1e-8)
    np.testing.assert_allclose(
        found.update.reshape(-1), -rate * case.features @ case.features.T @ slope, rtol=1e-8
    )
    np.testing.assert_allclose(  # u_j . u_j = n
        np.sum(found.functions.reshape(10, -1) ** 2, axis=1), 5
    )


@pytest.mark.slow
def test_function_update_is_what_a_small_step_does(case):
    """f(w - h grad L) - f(w) is the update up to h^2."""
    outputs = jax.vmap(apply_fn, (None, 0))
    gradient = jax.grad(lambda p: loss_of_outputs(outputs(p, case.x)))(case.params)
    errors = []
    for rate in (1e-2, 1e-3):
        after = jax.tree.map(lambda w, g, h=rate: w - h * g, case.params, gradient)
        change = outputs(after, case.x) - outputs(case.params, case.x)
        found = function_space_update(apply_fn, case.params, case.x, loss_of_outputs, rate)
        errors.append(np.linalg.norm(found.update - change))
    np.testing.assert_allclose(np.log10(errors[0] / errors[1]), 2, atol=0.02)


def test_path_complexity(case):
    rng = np.random.default_rng(3)
    path = jax.tree.map(lambda w: w + rng.normal(size=(4, *w.shape)), case.params)
    path["steps"] = jnp.arange(2)  # not a floating leaf: the same all along
    found = jax.jit(path_complexity, static_argnums=0)(apply_fn, path, case.x)
    at = lambda t: {k: np.asarray(path[k][t]) for k in ("in", "out")}
    terms = [
        np.sqrt(sum(np.sum((at(t + 1)[k] - at(t)[k]) ** 2) for k in ("in", "out")))
        * np.linalg.norm(features_of(at(t), case.x))
        for t in range(3)
    ]
    np.testing.assert_allclose(found, np.cumsum(terms), rtol=1e-10)


def exact_complexity(scaled_features, radius):
    """The empirical Rademacher complexity of {w . Phi : |w|_A <= M}, over all signs.

    The largest of sum_i s_i w . Phi_i with |A' w| <= M is M |A^-1 Phi' s|.
    """
    signs = np.array(list(itertools.product((-1.0, 1.0), repeat=len(scaled_features))))
    suprema = np.linalg.norm(signs @ scaled_features, axis=1)
    return radius * np.mean(suprema)


def test_rademacher_bound(case):
    rng = np.random.default_rng(4)
    a = rng.normal(size=(16, 16)) + 4 * np.eye(16)
    inverse = np.linalg.inv(a)

    def solve(v):  # A mixes the leaves
        flat, unravel = jax.flatten_util.ravel_pytree(v)
        return unravel(inverse @ flat)

    plain, scaled = jax.jit(
        lambda p, x: (
            rademacher_bound(apply_fn, p, x, 3.0),
            rademacher_bound(apply_fn, p, x, 3.0, inverse=solve),
        )
    )(case.params, case.x)
    features = case.features @ inverse.T
    np.testing.assert_allclose(plain, 3 / 5 * np.linalg.norm(case.features))
    np.testing.assert_allclose(scaled, 3 / 5 * np.linalg.norm(features))
    assert 0.7 * plain < exact_complexity(case.features, 3) / 5 < plain
    assert 0.7 * scaled < exact_complexity(features, 3) / 5 < scaled


def test_the_rademacher_bound_is_attained_by_orthogonal_features():
    x = np.diag([1.0, 2.0, 3.0])
    found = rademacher_bound(linear, jnp.ones((1, 3)), x, 2.0)
    np.testing.assert_allclose(found, exact_complexity(x, 2) / 3)


@pytest.mark.slow
def test_rademacher_bound_of_a_path(case):
    rng = np.random.default_rng(5)
    path = jax.tree.map(lambda w: w + rng.normal(size=(3, *w.shape)), case.params)
    radii, scales = np.array([0.5, 0.0, 2.0]), np.array([1.0, 2.0, 4.0])
    divided = lambda t, v: jax.tree.map(lambda g: g / jnp.asarray(scales)[t], v)
    features = [features_of({k: path[k][t] for k in path}, case.x) for t in range(3)]
    plain = rademacher_bound_of_path(apply_fn, path, case.x, radii)
    np.testing.assert_allclose(plain, sum(radii * [np.linalg.norm(f) for f in features]) / 5)
    scaled = rademacher_bound_of_path(apply_fn, path, case.x, radii, inverse=divided)
    norms = [np.linalg.norm(f) / s for f, s in zip(features, scales, strict=True)]
    np.testing.assert_allclose(scaled, sum(radii * norms) / 5)
    # with the lengths of the steps of a run it is its path complexity over n
    lengths = [
        np.sqrt(sum(np.sum((path[k][t + 1] - path[k][t]) ** 2) for k in path)) for t in range(2)
    ]
    before = jax.tree.map(lambda w: w[:2], path)
    bound = rademacher_bound_of_path(apply_fn, before, case.x, np.array(lengths))
    np.testing.assert_allclose(bound, path_complexity(apply_fn, path, case.x)[-1] / 5)


def test_trace_estimate_over_many_keys(case):
    kernel = case.features @ case.features.T
    variance = 2 * np.sum((kernel - np.diag(np.diag(kernel))) ** 2)
    estimate = lambda key: tangent_kernel_trace_estimate(
        apply_fn, case.params, case.x, probes=5, key=key
    )
    found = jax.jit(jax.vmap(estimate))(jax.random.split(jax.random.key(6), 2000))
    for each, expected in ((found.trace, np.trace(kernel)), (found.variance, variance)):
        assert abs(np.mean(each) - expected) < 3 * np.std(each) / np.sqrt(2000)
    np.testing.assert_allclose(found.standard_error, np.sqrt(found.variance / 5))
    np.testing.assert_allclose(np.std(found.trace), np.sqrt(variance / 5), rtol=0.1)


def test_errors(case):
    p, x = case.params, case.x
    w, points = jnp.ones((2, 2)), np.ones((3, 2))
    with pytest.raises(ValueError, match=r"shape \(5, 2\), or 5 integer labels; got shape \(5,\)"):
        tangent_kernel_alignment(apply_fn, p, x, np.ones(5))
    with pytest.raises(ValueError, match=r"k must be at most .* n q = 10; got 11"):
        feature_covariance_eigenpairs(apply_fn, p, x, 11)
    with pytest.raises(ValueError, match=r"k must be at least 1; got 0"):
        feature_covariance_eigenpairs(apply_fn, p, x, 0)
    with pytest.raises(ValueError, match=r"loss_of_outputs must return a scalar.*\(5, 2\)"):
        function_space_update(apply_fn, p, x, lambda f: f, 0.1)
    with pytest.raises(ValueError, match=r"path must hold at least two points.*holds 1"):
        path_complexity(linear, w[None], points)
    with pytest.raises(ValueError, match=r"share a leading axis.*\[\(2, 2\), \(3, 2\)\]"):
        path_complexity(linear, [w, jnp.ones((3, 2))], points)
    with pytest.raises(ValueError, match=r"radii must be one a step, of shape \(4,\); got \(3,\)"):
        rademacher_bound_of_path(linear, jnp.ones((4, 2, 2)), points, np.ones(3))
    with pytest.raises(ValueError, match=r"radii must not be negative"):
        rademacher_bound_of_path(linear, jnp.ones((2, 2, 2)), points, np.array([1.0, -1.0]))
    with pytest.raises(ValueError, match=r"radius must not be negative; got -1"):
        rademacher_bound(linear, w, points, -1)
    with pytest.raises(ValueError, match=r"probes must be at least 2; got 1"):
        tangent_kernel_trace_estimate(linear, w, points, probes=1)
    many = jax.ShapeDtypeStruct((10**7, 2), float)
    for measure in (
        lambda x: tangent_kernel_spectrum(linear, w, x),
        lambda x: tangent_kernel_alignment(linear, w, x, x),
        lambda x: feature_covariance_eigenpairs(linear, w, x, 1),
        lambda x: function_space_update(linear, w, x, jnp.sum, 0.1),
    ):
        with pytest.raises(KernelTooLargeError, match=r"needs 6.4e\+06 GB.*Take fewer examples"):
            jax.eval_shape(measure, many)
    matrix = lambda w, x: jnp.outer(x, x)
    for measure in (tangent_kernel_spectrum, tangent_kernel_trace_estimate):
        with pytest.raises(ValueError, match=r"vector \(q,\) or a scalar"):
            measure(matrix, w, points)
