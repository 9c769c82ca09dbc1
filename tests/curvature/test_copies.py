"""Lanczos and the copies of repeated eigenvalues, against LAPACK on dense matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from igr.curvature import top_eigenpairs
from igr.curvature.locked import ruled_out
from tests.curvature.cases import best, diagonal, multiply, rows


@pytest.mark.parametrize(
    ("top", "which", "dtype"),
    [
        ([-9, 8, 8, 5, -4.9], "magnitude", jnp.float32),
        pytest.param([-9, 8, 8, 5, -4.9], "magnitude", jnp.float64, marks=pytest.mark.slow),
        pytest.param([8, 8, 8, 5, -4.9], "magnitude", jnp.float32, marks=pytest.mark.slow),
        pytest.param([8, 8, 8, 5, -4.9], "magnitude", jnp.float64, marks=pytest.mark.slow),
        ([-6, -6, 6, 6, 6], "magnitude", jnp.float32),
        pytest.param([-6, -6, 6, 6, 6], "magnitude", jnp.float64, marks=pytest.mark.slow),
        pytest.param([8, 5, 5, 5, 4], "largest", jnp.float64, marks=pytest.mark.slow),
        pytest.param([8, 5, 5, 5, 4], "largest", jnp.float32, marks=pytest.mark.slow),
        pytest.param([-7, -7, -7, -7, -7], "smallest", jnp.float32, marks=pytest.mark.slow),
        pytest.param([-7, -7, -7, -7, -7], "smallest", jnp.float64, marks=pytest.mark.slow),
    ],
)
def test_lanczos_finds_every_copy_of_a_repeated_eigenvalue(top, which, dtype):
    """In turned coordinates, with a bulk up to 3, and 20 vectors in the basis for 400."""
    rng = np.random.default_rng(1)
    entries = np.concatenate([top, rng.uniform(-3, 3, size=395)])
    turn = np.linalg.qr(rng.normal(size=(400, 400)))[0]
    dense = (turn * entries) @ turn.T
    product = Partial(multiply, jnp.asarray(dense, dtype))
    found = top_eigenpairs(product, jnp.zeros(400, dtype), 5, which=which)
    exact = best(np.linalg.eigvalsh(dense), 5, which)
    assert found.converged
    np.testing.assert_allclose(np.sort(found.values), np.sort(exact), rtol=1e-3)
    q = rows(found.vectors, 5)
    slack = 1e-5 if dtype == jnp.float32 else 1e-12
    np.testing.assert_allclose(q @ q.T, np.eye(5), atol=slack)
    true = np.linalg.norm(q @ dense - np.asarray(found.values)[:, None] * q, axis=1)
    assert np.all(true <= np.asarray(found.residuals) * 1.001 + 20 * slack)


@pytest.mark.slow
@pytest.mark.parametrize("which", ["magnitude", "largest", "smallest"])
def test_lanczos_on_random_matrices_with_copies_and_clusters(which):
    """Forty of them: apart, repeated, clustered, negative, over bulks of three widths.

    What is apart is so by a tenth at least: closer than that, a bound that knows nothing of the
    values it has not seen may be too small.
    """
    rng = np.random.default_rng(5)
    grid = 3 * 1.2 ** np.arange(8)
    for trial in range(40):
        top = rng.permutation(grid) * rng.choice([-1, 1], size=8)
        top = {
            0: top,
            1: np.repeat(top[:3], [3, 2, 3]),
            2: np.concatenate([np.repeat(top[:2], 2), top[:4] * (1 + 1e-5 * rng.normal(size=4))]),
            3: -np.abs(np.repeat(top[:4], 2)),
        }[trial % 4]
        width = rng.choice([0.3, 1.0, 2.5])
        bulk = rng.uniform(-width, width, size=292)
        turn = np.linalg.qr(rng.normal(size=(300, 300)))[0]
        dense = (turn * np.concatenate([top, bulk])) @ turn.T
        product = Partial(multiply, jnp.asarray(dense))
        found = top_eigenpairs(product, jnp.zeros(300), 5, which=which)
        exact = best(np.linalg.eigvalsh(dense), 5, which)
        beyond = {"magnitude": np.abs(exact), "largest": exact, "smallest": -exact}[which] > width
        assert found.converged
        of = np.abs if which == "magnitude" else np.asarray  # two of opposite sign may swap
        np.testing.assert_allclose(of(found.values)[beyond], of(exact)[beyond], rtol=1e-3)


@pytest.mark.slow
def test_lanczos_on_values_within_a_few_per_cent_of_each_other():
    """Twenty times: what is found late lies near to what was accepted without it.

    A bound knows nothing of a value that was not seen, so that one of them may come out wrong.
    """
    rng = np.random.default_rng(7)
    wrong = 0
    for _ in range(20):
        top = 4 * (1 + 0.02 * rng.normal(size=8)) * rng.choice([-1, 1], 8)
        bulk = rng.uniform(-1, 1, size=292)
        turn = np.linalg.qr(rng.normal(size=(300, 300)))[0]
        dense = (turn * np.concatenate([top, bulk])) @ turn.T
        found = top_eigenpairs(Partial(multiply, jnp.asarray(dense)), jnp.zeros(300), 5)
        exact = best(np.linalg.eigvalsh(dense), 5, "magnitude")
        assert found.converged
        assert np.all(found.errors <= 1e-3 * np.abs(found.values))
        wrong += not np.allclose(np.abs(found.values), np.abs(exact), rtol=1e-3)
    assert wrong <= 1


def test_what_a_krylov_space_rules_out():
    """Never less than the largest eigenvalue; half as much again after a few steps."""
    rng = np.random.default_rng(0)
    judge = jax.jit(lambda *args: ruled_out(*args, 200))
    for _ in range(50):
        entries = rng.uniform(-1, 1, size=200) * rng.choice([1.0, 1e-20])
        top = entries.max()
        basis, alphas, betas = [rng.normal(size=200)], [], []
        basis[0] /= np.linalg.norm(basis[0])
        after = None
        for m in range(1, 23):
            w = entries * basis[-1]
            alphas.append(w @ basis[-1])
            for _ in range(2):
                w = w - np.array(basis).T @ (np.array(basis) @ w)
            betas.append(np.linalg.norm(w))
            basis.append(w / betas[-1])
            small = np.diag(alphas) + np.diag(betas[:-1], 1) + np.diag(betas[:-1], -1)
            row = [np.pad(x, (0, 22 - m)) for x in (np.linalg.eigvalsh(small), betas)]
            known = np.arange(22) < m
            assert not judge(top, *row, known)
            if after is None and judge(1.5 * top, *row, known):
                after = m
        assert after is not None
        assert after > 3


@pytest.mark.slow
def test_without_products_left_for_the_other_copies_nothing_is_converged():
    entries = np.concatenate([[-9, 8, 8, 5, -4.9], np.linspace(-3, 3, 395)])
    spent = int(top_eigenpairs(*diagonal(entries), 5).products)
    for limit in range(8, spent + 10, 5):
        found = top_eigenpairs(*diagonal(entries), 5, max_products=limit)
        assert found.products <= limit
        right = np.allclose(np.sort(found.values), [-9, -4.9, 5, 8, 8], rtol=1e-3)
        assert right or not found.converged


@pytest.mark.slow
def test_no_copy_is_made_up_where_the_matrix_has_few_eigenvalues():
    """The Krylov space ends early; all that is left over is less than what was found."""
    entries = np.concatenate([[-1.0, -1.0, -2.0], np.full(397, -3.0)])
    found = top_eigenpairs(*diagonal(entries), 4, which="largest", tol=1e-8)
    assert found.converged
    np.testing.assert_allclose(found.values, [-1, -1, -2, -3], rtol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("k", [2, 5])
def test_the_end_that_is_zero_of_a_matrix_of_low_rank(k):
    """Rounding is of the size of what the restarts left out: the largest, and not the zeros."""
    rng = np.random.default_rng(3)
    half = jnp.asarray(np.linalg.qr(rng.normal(size=(300, 3)))[0])
    product = Partial(lambda half, v: half @ (half.T @ v * 100), half)
    found = top_eigenpairs(product, jnp.zeros(300), k, which="smallest")
    assert found.converged
    np.testing.assert_allclose(found.values, 0, atol=1e-12)
    q = rows(found.vectors, k)
    np.testing.assert_allclose(q @ q.T, np.eye(k), atol=1e-12)


@pytest.mark.parametrize("n", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 4, 5))])
def test_every_eigenvalue_of_a_multiple_of_the_identity(n):
    """Its Krylov spaces are exhausted at once, and the next direction is never the first again."""
    for factor in (1.0, -2.0):
        turn = jnp.asarray(np.linalg.qr(np.random.default_rng(1).normal(size=(n, n)))[0])
        found = top_eigenpairs(Partial(multiply, factor * turn @ turn.T), jnp.zeros(n), n)
        assert found.converged
        np.testing.assert_allclose(found.values, factor, rtol=1e-6)
