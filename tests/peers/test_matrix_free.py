"""Traces, functions of matrices, densities and extreme eigenvalues against dense algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.sparse.linalg
from jax.tree_util import Partial

from igr import curvature

pytestmark = pytest.mark.slow
RNG = np.random.default_rng(0)
SIZE = 40


def multiply(matrix, v):
    return matrix @ v


def symmetric(values):
    q = np.linalg.qr(RNG.normal(size=(SIZE, SIZE)))[0]
    return q * np.asarray(values) @ q.T


def by_eigenvalues(function, matrix):
    values, vectors = np.linalg.eigh(matrix)
    return vectors * function(values) @ vectors.T


SPECTRA = {
    "spread": np.linspace(-3, 5, SIZE),
    "one far out": np.append(np.linspace(0.5, 1, SIZE - 1), 40),
    "a thousand times": np.geomspace(1e-3, 1, SIZE),
    "two clusters": np.repeat([1.0, 3.0], SIZE // 2) + 1e-3 * RNG.normal(size=SIZE),
    "triples": np.repeat([7.0, 4.0, -5.0, 1.0], [3, 3, 3, SIZE - 9]),
    "of low rank": np.append(np.zeros(SIZE - 3), [1.0, 2.0, 3.0]),
    "nothing": np.zeros(SIZE),
}
FUNCTIONS = {
    "exponential": (jnp.exp, scipy.linalg.expm),
    "square": (jnp.square, lambda a: a @ a),
    "magnitude": (jnp.abs, lambda a: by_eigenvalues(np.abs, a)),
    "resolvent": (lambda x: 1 / (10 + x), lambda a: np.linalg.inv(10 * np.eye(SIZE) + a)),
    "logarithm": (
        lambda x: jnp.log(6 + x),
        lambda a: by_eigenvalues(lambda x: np.log(6 + x), a),
    ),
}


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_traces_of_functions(spectrum, function):
    """By the whole Krylov space of every probe, so that the probes' own error is what is left."""
    matrix = symmetric(SPECTRA[spectrum])
    elementwise, dense = FUNCTIONS[function]
    keys = jax.random.split(jax.random.key(1), 60)
    found = curvature.trace(
        Partial(multiply, jnp.asarray(matrix)),
        jnp.zeros(SIZE),
        function=elementwise,
        num_probes=60,
        num_products=SIZE,
        key=jax.random.key(1),
    )
    signs = [jax.random.rademacher(jax.random.split(k, 1)[0], (SIZE,), jnp.float64) for k in keys]
    whole = dense(matrix)
    forms = np.array([np.asarray(v) @ whole @ np.asarray(v) for v in signs])
    np.testing.assert_allclose(found.value, forms.mean(), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(
        found.error, forms.std(ddof=1) / np.sqrt(60), rtol=1e-4, atol=1e-6 * abs(forms.mean())
    )
    assert abs(found.value - np.trace(whole)) <= 5 * found.error + 1e-6


@pytest.mark.parametrize("which", ["magnitude", "largest", "smallest"])
@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("method", ["lanczos", "subspace"])
def test_extreme_eigenvalues_with_all_their_copies(spectrum, which, method):
    if method == "subspace" and which != "magnitude":
        pytest.skip("subspace iteration finds what is largest in magnitude alone")
    matrix = symmetric(SPECTRA[spectrum])
    values = np.linalg.eigvalsh(matrix)
    order = {"magnitude": -abs(values), "largest": -values, "smallest": values}[which]
    expected = values[np.argsort(order, kind="stable")][:5]
    found = curvature.top_eigenpairs(
        Partial(multiply, jnp.asarray(matrix)),
        jnp.zeros(SIZE),
        5,
        which=which,
        method=method,
        tol=1e-6,
        max_products=20_000,
    )
    # Powers tell eigenvalues apart by their ratios, here of 1.00001: it says that it could not.
    slow = (method, spectrum) == ("subspace", "two clusters")
    assert found.converged or slow
    compared = (np.sort(abs(expected)), np.sort(abs(found.values)))
    np.testing.assert_allclose(*compared[::-1], rtol=1e-3 if slow else 1e-5, atol=1e-9)
    vectors = np.asarray(found.vectors)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(5), atol=1e-6)
    off = vectors @ matrix - np.asarray(found.values)[:, None] * vectors
    rounding = 1e-12 * max(1, np.max(abs(values)))
    assert np.all(np.linalg.norm(off, axis=1) <= 1.01 * found.residuals + rounding)


@pytest.mark.parametrize("spectrum", ["spread", "one far out", "two clusters"])
def test_against_the_solver_of_scipy(spectrum):
    matrix = symmetric(SPECTRA[spectrum])
    theirs = scipy.sparse.linalg.eigsh(matrix, k=3, which="LA", return_eigenvectors=False)
    ours = curvature.top_eigenpairs(
        Partial(multiply, jnp.asarray(matrix)), jnp.zeros(SIZE), 3, which="largest", tol=1e-8
    )
    np.testing.assert_allclose(ours.values, np.sort(theirs)[::-1], rtol=1e-7)


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_moments_of_the_density(spectrum):
    """Quadrature of k nodes has the first 2k moments that its probes see."""
    matrix = symmetric(SPECTRA[spectrum])
    found = curvature.spectral_density(
        Partial(multiply, jnp.asarray(matrix)), jnp.zeros(SIZE), num_probes=3, num_products=6
    )
    for row, key in enumerate(jax.random.split(jax.random.key(0), 3)):
        probe = np.asarray(jax.random.rademacher(jax.random.split(key, 1)[0], (SIZE,), jnp.float64))
        for power in range(12):
            exact = probe @ np.linalg.matrix_power(matrix, power) @ probe / SIZE
            moment = jnp.sum(found.weights[row] * found.nodes[row] ** power)
            np.testing.assert_allclose(moment, exact, rtol=1e-6, atol=1e-9)
    step = float(found.grid[1] - found.grid[0])
    np.testing.assert_allclose(np.sum(found.density) * step, 1, atol=1e-2)
    assert np.all(found.density >= 0)
