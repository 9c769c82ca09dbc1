"""Traces and densities against dense eigenvalues, and the size of their error bars."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from igr.curvature import hessian_product, spectral_density, trace


def multiply(matrix, v):
    return matrix @ v


@pytest.fixture(scope="module")
def matrix():
    rng = np.random.default_rng(0)
    q = np.linalg.qr(rng.normal(size=(150, 150)))[0]
    return q * np.concatenate([[10.0, -6.0, 4.0], rng.normal(size=147) * 0.5]) @ q.T


def test_trace_is_exact_for_diagonal_matrices():
    found = trace(lambda v: jnp.arange(6.0) * v, jnp.zeros(6))
    assert (found.value, found.error) == (15.0, 0.0)


def test_trace_of_a_network(case_named):
    case = case_named("equinox_mlp")
    product = hessian_product(case.example_loss_fn, case.params, case.batch)
    found = trace(product, case.params, num_probes=400)
    assert abs(found.value - np.trace(case.hessian)) < 4 * found.error


@pytest.mark.parametrize("function", [None, pytest.param(jnp.exp, marks=pytest.mark.slow)])
def test_error_bars_cover_the_truth(function):
    """Off by less than two standard errors in most of 20 draws, and by four in none."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(150, 150)) / 20
    matrix = matrix + matrix.T
    values = np.linalg.eigvalsh(matrix)
    exact = np.sum(values if function is None else np.asarray(function(values)))
    product = Partial(multiply, jnp.asarray(matrix))
    found = [
        trace(product, jnp.zeros(150), function=function, num_probes=30, key=jax.random.key(i))
        for i in range(20)
    ]
    off = np.array([(f.value - exact) / f.error for f in found])
    assert np.mean(np.abs(off) < 2) >= 0.8
    assert np.all(np.abs(off) < 4)


@pytest.mark.slow
def test_quadrature_of_the_whole_space_is_exact(matrix):
    """tr A^2 with every probe: v' A^2 v needs two products, and random signs give it exactly."""
    product = Partial(multiply, jnp.asarray(matrix))
    found = spectral_density(product, jnp.zeros(150), num_probes=4, num_products=5)
    for i, key in enumerate(jax.random.split(jax.random.key(0), 4)):
        probe = jax.random.rademacher(jax.random.split(key, 1)[0], (150,), jnp.float64)
        for power in range(10):  # a rule of five nodes is exact up to degree nine
            exact = probe @ np.linalg.matrix_power(matrix, power) @ probe / 150
            got = jnp.sum(found.weights[i] * found.nodes[i] ** power)
            np.testing.assert_allclose(got, exact, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_density_against_the_smoothed_eigenvalues(matrix):
    values = np.linalg.eigvalsh(matrix)
    product = Partial(multiply, jnp.asarray(matrix))
    found = spectral_density(product, jnp.zeros(150), num_probes=40, num_products=40, width=0.3)
    grid, step = np.asarray(found.grid), float(found.grid[1] - found.grid[0])
    exact = np.mean(
        np.exp(-(((grid[:, None] - values) / 0.3) ** 2) / 2) / (0.3 * np.sqrt(2 * np.pi)), 1
    )
    assert np.sum(found.density) * step == pytest.approx(1, abs=1e-2)
    np.testing.assert_allclose(found.weights.sum(1), 1, atol=1e-10)
    off = np.abs(np.asarray(found.density) - exact)
    assert off.max() < 0.1 * exact.max()
    assert np.mean(off <= 3 * np.asarray(found.error) + 1e-3 * exact.max()) > 0.95


@pytest.mark.slow
def test_few_distinct_eigenvalues_and_a_grid_of_ones_own():
    entries = jnp.asarray(np.repeat([1.0, 2.0], [30, 10]))
    grid = jnp.linspace(0, 3, 7)
    found = spectral_density(lambda v: entries * v, entries, num_products=8, grid=grid, width=0.2)
    np.testing.assert_array_equal(found.grid, grid)
    mean = jnp.mean(jnp.sum(found.weights * found.nodes, 1))
    np.testing.assert_allclose(mean, 1.25, rtol=1e-9)  # random signs: exact for a diagonal
    flat = spectral_density(lambda v: 0 * v, jnp.zeros(5), num_products=3)
    assert np.all(np.isfinite(flat.density))


@pytest.mark.slow
def test_inside_jit_and_in_bfloat16():
    @jax.jit
    def run(entries):
        return trace(lambda v: entries * v, entries, function=jnp.abs, num_products=4)

    found = run(jnp.asarray([2.0, -4.0, 8.0, 0.0], jnp.bfloat16))
    assert found.value.dtype == jnp.float32
    np.testing.assert_allclose(found.value, 14.0, rtol=1e-2)


def test_nan_is_seen():
    found = trace(lambda v: jnp.nan * v, jnp.zeros(5))
    assert np.isnan(found.value)
    assert np.isnan(found.error)


@pytest.mark.parametrize(
    ("call", "options", "message"),
    [
        (trace, {"num_probes": 1}, "num_probes must be at least 2; got 1"),
        (trace, {"num_products": 0}, "num_products must be at least 1; got 0"),
        (spectral_density, {"num_probes": 0}, "num_probes must be at least 2"),
        (spectral_density, {"width": -1.0}, "width must be positive and finite; got -1.0"),
    ],
)
def test_bad_input(call, options, message):
    with pytest.raises(ValueError, match=message):
        call(lambda v: v, jnp.zeros(5), **options)
