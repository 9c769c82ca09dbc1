"""The cone problem against its conditions, a projected gradient method of scipy's kind, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from igr.flows.edge.complementarity import solve_complementarity, symmetric_basis


def _problem(k, rank, seed):
    draw = np.random.default_rng(seed)
    m = k * (k + 1) // 2
    factor = draw.normal(size=(m, rank))
    a = draw.normal(size=(k, k))
    return a + a.T - 0.5 * np.eye(k), factor @ factor.T / rank


@pytest.fixture(scope="module")
def solve():
    return jax.jit(solve_complementarity)


@pytest.mark.parametrize("k", [1, 3, *(pytest.param(k, marks=pytest.mark.slow) for k in (2, 5))])
def test_conditions_hold_and_scipy_agrees(solve, k):
    """scipy minimises the same objective over X = L L', which needs no cone."""
    basis = symmetric_basis(k)
    m = len(basis)
    for seed in range(4):
        a, b = _problem(k, m + 3, seed)
        found = solve(jnp.asarray(a), jnp.asarray(b))
        assert bool(found.converged)
        x, slack = np.asarray(found.matrix), np.asarray(found.slack)
        image = np.einsum("p,pij->ij", b @ np.einsum("pij,ij->p", basis, x), basis) + a
        np.testing.assert_allclose(slack, image, atol=1e-9)
        size = 1 + np.linalg.norm(x) * np.linalg.norm(slack)
        assert np.linalg.eigvalsh(x)[0] > -1e-10
        assert np.linalg.eigvalsh(slack)[0] > -1e-8
        assert abs(np.sum(x * slack)) < 1e-8 * size

        def objective(flat, a=a, b=b):
            factor = flat.reshape(k, k)
            x = factor @ factor.T
            v = np.einsum("pij,ij->p", basis, x)
            slope = a + np.einsum("p,pij->ij", b @ v, basis)
            return np.sum(a * x) + v @ b @ v / 2, (2 * slope @ factor).ravel()

        best = min(
            minimize(objective, start.ravel(), jac=True, options={"gtol": 1e-10}).fun
            for start in np.random.default_rng(9).normal(size=(3, k, k))
        )
        v = np.einsum("pij,ij->p", basis, x)
        assert np.sum(a * x) + v @ b @ v / 2 == pytest.approx(best, abs=1e-7 * (1 + abs(best)))


def test_one_dimension_is_a_maximum(solve):
    for a, b in [(-3.0, 2.0), (3.0, 2.0), (-1e-6, 1e4), (-1e6, 1e-3)]:
        found = solve(jnp.array([[a]]), jnp.array([[b]]))
        np.testing.assert_allclose(found.matrix[0, 0], max(0.0, -a / b), rtol=1e-8, atol=1e-11)


def test_nothing_to_solve_is_zero(solve):
    found = solve(jnp.eye(3), jnp.eye(6))
    assert float(np.linalg.norm(found.matrix)) < 1e-9


def test_what_has_no_solution_says_so(solve):
    """B = 0 cannot lift an A that is not positive semidefinite."""
    found = solve(jnp.diag(jnp.array([-1.0, 1.0])), jnp.zeros((3, 3)))
    assert not bool(found.converged)


def test_single_precision(solve):
    a, b = _problem(3, 9, 0)
    exact = solve(jnp.asarray(a), jnp.asarray(b)).matrix
    found = solve(jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32))
    assert found.matrix.dtype == jnp.float32
    assert bool(found.converged)
    np.testing.assert_allclose(found.matrix, exact, atol=2e-3 * np.abs(exact).max())
