"""Eigenpairs against numpy and scipy on dense matrices, and the honesty of what is reported."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg
from jax.tree_util import Partial

from igr.curvature import hessian_product, top_eigenpairs
from tests.curvature.cases import SADDLE, best, diagonal, multiply, rows, scale, spread
from tests.quick import quick

METHODS = ("lanczos", "subspace")
LOOK = math.ceil(1.5 * math.log(400))  # the products of a look for copies among 400


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("linear_regression", "lanczos"),
        pytest.param("softmax_mlp_float32", "lanczos", marks=pytest.mark.slow),
        pytest.param("equinox_mlp", "subspace", marks=pytest.mark.slow),
    ],
)
def test_pairs_are_those_of_the_dense_hessian(case_named, name, method):
    case, k = case_named(name), 5
    single = name.endswith("float32")
    product = hessian_product(case.example_loss_fn, case.params, case.batch)
    tol = 1e-4 if single else 1e-9
    found = top_eigenpairs(product, case.params, k, method=method, tol=tol, max_products=5000)
    exact = best(np.linalg.eigvalsh(case.hessian), k)
    assert found.converged
    np.testing.assert_allclose(np.sort(found.values), np.sort(exact), rtol=2 * tol, atol=1e-6)
    q, values = rows(found.vectors, k), np.asarray(found.values, float)
    slack = 1e-5 if single else 1e-10
    np.testing.assert_allclose(q @ q.T, np.eye(k), atol=slack)
    true = np.linalg.norm(q @ case.hessian - values[:, None] * q, axis=1)
    assert np.all(true <= np.asarray(found.residuals) + slack * np.abs(exact[0]))


@pytest.mark.slow
def test_subspace_sees_repeated_eigenvalues_in_a_large_space():
    entries = np.concatenate([[5.0, 5.0, 5.0, -5.0, 2.0, 2.0], np.linspace(-1, 1, 394)])
    found = top_eigenpairs(*diagonal(entries), 6, method="subspace", tol=1e-8, max_products=2000)
    assert found.converged
    np.testing.assert_allclose(np.sort(found.values), [-5, 2, 2, 5, 5, 5], rtol=1e-8)


@pytest.mark.parametrize(
    ("method", "dtype"),
    [
        ("lanczos", jnp.float64),
        pytest.param("subspace", jnp.float32, marks=pytest.mark.slow),
        pytest.param("lanczos", jnp.float32, marks=pytest.mark.slow),
        pytest.param("subspace", jnp.float64, marks=pytest.mark.slow),
    ],
)
def test_what_is_called_converged_is_within_the_tolerance(method, dtype):
    """Over matrices and starts: the flag, the bounds on the errors and the true residuals."""
    params = jnp.zeros(spread().size, dtype)
    rounding = 50 * jnp.finfo(dtype).eps * np.abs(spread()).max()
    for seed in range(5):
        entries = spread(seed=seed)
        product = Partial(scale, jnp.asarray(entries, dtype))
        key = jax.random.key(seed)
        found = top_eigenpairs(product, params, 6, method=method, key=key)
        exact = best(entries, 6)
        errors = np.abs(np.asarray(found.values, float) - exact)
        assert found.converged
        assert np.all(errors <= 1e-3 * np.abs(exact))
        assert np.all(errors <= np.asarray(found.errors) + rounding)
        q = rows(found.vectors, 6)
        true = np.linalg.norm(q * entries - np.asarray(found.values)[:, None] * q, axis=1)
        assert np.all(true <= np.asarray(found.residuals) * 1.001 + rounding)


@pytest.mark.slow
@pytest.mark.parametrize("which", ["largest", "smallest"])
def test_which_end_of_the_spectrum(which):
    entries = spread()
    product, params = diagonal(entries)
    found = top_eigenpairs(product, params, 4, which=which, tol=1e-10)
    np.testing.assert_allclose(found.values, best(entries, 4, which), rtol=1e-10)


@pytest.mark.slow
def test_restarts_agree_with_scipy():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(200, 200))
    matrix = (matrix + matrix.T) / 2
    product = Partial(multiply, jnp.asarray(matrix))
    found = top_eigenpairs(product, jnp.zeros(200), 4, tol=1e-12, basis_size=8, max_products=3000)
    values, vectors = scipy.sparse.linalg.eigsh(matrix, 4, which="LM", tol=1e-12)
    order = np.argsort(-np.abs(values))
    assert found.converged
    assert found.products > 8
    np.testing.assert_allclose(found.values, values[order], rtol=1e-11)
    alignment = np.abs(np.sum(np.asarray(found.vectors) * vectors.T[order], 1))
    np.testing.assert_allclose(alignment, 1, atol=1e-8)


def test_lanczos_needs_no_more_products_than_scipy_and_a_look_for_copies():
    entries = spread()
    spent = []

    def counted(v):
        spent.append(1)
        return entries * v

    shape = (entries.size, entries.size)
    operator = scipy.sparse.linalg.LinearOperator(shape, matvec=counted, dtype=float)
    scipy.sparse.linalg.eigsh(operator, 6, tol=1e-3)
    found = top_eigenpairs(*diagonal(entries), 6)
    assert found.products <= len(spent) + LOOK


@pytest.mark.parametrize("method", METHODS)
def test_too_few_products_say_so(method):
    product, params = diagonal(spread())
    found = top_eigenpairs(product, params, 6, method=method, max_products=8)
    assert not found.converged
    assert found.products <= 8
    assert np.all(np.isfinite(found.values))
    q = rows(found.vectors, 6)
    true = np.linalg.norm(q * spread() - np.asarray(found.values)[:, None] * q, axis=1)
    assert np.all(true <= np.asarray(found.residuals) * 1.001)


@pytest.mark.parametrize("method", METHODS)
def test_nan_is_seen_and_stops_the_solver(method):
    product, params = diagonal(np.full(400, np.nan))
    found = top_eigenpairs(product, params, 6, method=method)
    assert not found.converged
    assert np.all(np.isnan(found.values))
    assert found.products <= 8


@pytest.mark.parametrize("method", METHODS)
def test_the_zero_matrix(method):
    product, params = diagonal(np.zeros(400))
    found = top_eigenpairs(product, params, 6, method=method)
    assert found.converged
    np.testing.assert_array_equal(found.values, 0)


@pytest.mark.slow
@pytest.mark.parametrize("method", quick(METHODS, "lanczos"))
def test_the_whole_space_with_repeated_and_negative_eigenvalues(case_named, method):
    dense = case_named("saddle").hessian
    product = Partial(multiply, jnp.asarray(dense))
    found = top_eigenpairs(product, jnp.zeros(12), 12, method=method, tol=1e-8, max_products=5000)
    assert found.converged
    np.testing.assert_allclose(np.sort(found.values), np.sort(SADDLE), rtol=1e-7, atol=1e-12)
    q = rows(found.vectors, 12)
    np.testing.assert_allclose(q @ q.T, np.eye(12), atol=1e-12)
    np.testing.assert_allclose(q.T * np.asarray(found.values) @ q, dense, atol=1e-6)


def test_one_parameter():
    found = top_eigenpairs(*diagonal([-2.0]), 1)
    assert found.converged
    np.testing.assert_allclose(found.values, [-2.0])


@pytest.mark.slow
@pytest.mark.parametrize("method", quick(METHODS, "lanczos"))
def test_a_warm_start_spends_less(method):
    entries = spread()
    product, params = diagonal(entries)
    cold = top_eigenpairs(product, params, 6, method=method)
    moved = Partial(scale, jnp.asarray(entries * 1.01 + 0.01))
    again = top_eigenpairs(moved, params, 6, method=method)
    warm = top_eigenpairs(moved, params, 6, method=method, initial=cold.vectors)
    assert warm.converged
    look = LOOK if method == "lanczos" else 0  # for copies, warm or not
    assert warm.products - look <= 0.75 * (again.products - look)
    np.testing.assert_allclose(warm.values, best(entries * 1.01 + 0.01, 6), rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_inside_jit_and_vmap(method):
    matrices = jnp.asarray(np.stack([spread(seed=s) for s in range(3)]))

    @jax.jit
    def every(matrices):
        def one(entries):
            return top_eigenpairs(
                lambda v: entries * v, jnp.zeros_like(entries), 3, method=method, tol=1e-8
            )

        return jax.vmap(one)(matrices)

    found = every(matrices)
    assert found.converged.all()
    for values, entries in zip(found.values, matrices, strict=True):
        np.testing.assert_allclose(values, best(np.asarray(entries), 3), rtol=1e-8)


@pytest.mark.slow
def test_bfloat16_parameters_are_solved_in_float32():
    entries = np.concatenate([[8.0, -4.0, 2.0], np.zeros(61)])  # exact in bfloat16
    found = top_eigenpairs(*diagonal(entries, jnp.bfloat16), 3, tol=1e-2)
    assert found.values.dtype == jnp.float32
    assert found.vectors.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.values, [8.0, -4.0, 2.0], rtol=2e-2)


@pytest.mark.slow
def test_other_limits_reuse_the_compiled_program(compilations):
    entries = spread()

    def found(tol, limit, factor):
        scale = jnp.asarray(factor * entries)
        product = lambda v: scale * v
        return top_eigenpairs(product, entries, 3, tol=tol, max_products=limit)

    assert compilations(lambda: found(1e-3, 300, 1)) > 0
    assert compilations(lambda: (found(1e-4, 300, 2), found(1e-3, 200, 3))) == 0


@pytest.mark.slow
def test_subspace_lives_in_the_memory_of_its_columns():
    n, k = 100_000, 8
    entries = jnp.ones(n, jnp.float32)
    product = Partial(scale, entries)

    def solve(product, params):
        return top_eigenpairs(product, params, k, method="subspace")

    analysis = jax.jit(solve).lower(product, entries).compile().memory_analysis()
    assert analysis.temp_size_in_bytes <= (k + 2 + 7) * entries.nbytes


def test_an_asymmetric_product_is_refused_on_request():
    matrix = np.random.default_rng(0).normal(size=(5, 5))
    params = jnp.zeros(5)
    with pytest.raises(ValueError, match=r"product is not symmetric: <u, Av> and <Au, v> differ"):
        top_eigenpairs(Partial(multiply, jnp.asarray(matrix)), params, 2, check_symmetric=True)
    even = Partial(multiply, jnp.asarray(matrix + matrix.T))
    plain = top_eigenpairs(even, params, 2)
    checked = top_eigenpairs(even, params, 2, check_symmetric=True)
    assert checked.products == plain.products + 2
    np.testing.assert_allclose(checked.values, plain.values, rtol=1e-10)


@pytest.mark.slow
def test_an_asymmetric_product_is_refused_inside_jit():
    matrix = jnp.asarray(np.random.default_rng(0).normal(size=(5, 5)))

    @eqx.filter_jit
    def solve(matrix):
        product = Partial(multiply, matrix)
        return top_eigenpairs(product, jnp.zeros(5), 2, check_symmetric=True).values

    with pytest.raises(RuntimeError, match="product is not symmetric"):
        jax.block_until_ready(solve(matrix))


@pytest.mark.parametrize(
    ("k", "options", "message"),
    [
        (0, {}, r"k must be between 1 and 6, the number of parameters; got 0"),
        (7, {}, r"k must be between 1 and 6, the number of parameters; got 7"),
        (2, {"method": "power"}, "method must be 'lanczos' or 'subspace'; got 'power'"),
        (2, {"which": "LM"}, "which must be 'magnitude', .* or 'smallest'; got 'LM'"),
        (2, {"which": "largest", "method": "subspace"}, "needs method='lanczos'"),
        (2, {"tol": 0.0}, "tol must be positive and finite; got 0.0"),
        (2, {"tol": float("nan")}, "tol must be positive and finite; got nan"),
        (2, {"basis_size": 3}, r"basis_size \(for k = 2\) must be at least 4; got 3"),
        (2, {"max_products": 3}, r"max_products \(for k = 2\) must be at least 4; got 3"),
        (2, {"initial": jnp.ones(5)}, "initial must have the structure and shapes of params"),
        (2, {"initial": jnp.ones((3, 6))}, "initial must have .* a leading axis of 2"),
    ],
)
def test_bad_input(k, options, message):
    product, params = diagonal(np.arange(6.0))
    with pytest.raises(ValueError, match=message):
        top_eigenpairs(product, params, k, **options)


def test_a_product_of_another_shape_is_named():
    with pytest.raises(ValueError, match=r"product\(v\) must have the structure and shapes"):
        top_eigenpairs(lambda v: v[:3], jnp.zeros(5), 1)
    with pytest.raises(ValueError, match="params must hold at least one floating array"):
        top_eigenpairs(lambda v: v, {"n": jnp.arange(3)}, 1)
