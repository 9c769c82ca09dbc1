"""Arithmetic on bases, against numpy's on dense matrices."""

import jax.numpy as jnp
import numpy as np
import pytest

from igr.curvature.vectors import BLOCK, FEW, UNROLLED, Divided, combination, orthogonalized

SIDE = 129
assert SIDE * (SIDE - 1) > BLOCK  # a large leaf, beside a small one


def rows_of(matrix):
    """Rows of a matrix as a basis of a large leaf and a small one."""
    large, small = np.split(matrix, [SIDE * (SIDE - 1)], axis=1)
    return {
        "large": jnp.asarray(large.reshape(-1, SIDE, SIDE - 1)),
        "small": jnp.asarray(small),
    }


def flat(vector):
    return np.concatenate([np.ravel(vector["large"]), np.ravel(vector["small"])])


@pytest.mark.parametrize("m", [1, FEW + 1, UNROLLED, UNROLLED + 1])
def test_a_combination_is_the_product_with_the_matrix(m):
    rng = np.random.default_rng(m)
    matrix, weights = rng.normal(size=(m, SIDE * (SIDE - 1) + 40)), rng.normal(size=m)
    found = combination(jnp.asarray(weights), rows_of(matrix))
    np.testing.assert_allclose(flat(found), weights @ matrix, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("k", [3, 10])
def test_what_is_left_is_orthogonal_to_both_blocks(k):
    rng = np.random.default_rng(k)
    n, m = SIDE * (SIDE - 1) + 40, k + 15
    q = np.linalg.qr(rng.normal(size=(n, m)))[0].T
    w = rng.normal(size=n) + 30 * q[0] - 20 * q[-1]
    basis = Divided(rows_of(q[:k]), rows_of(q[k:]))
    vector = {name: leaf[0] for name, leaf in rows_of(w[None]).items()}
    left, coordinates, inside = orthogonalized(vector, basis)
    np.testing.assert_allclose(coordinates, q @ w, atol=1e-11)
    np.testing.assert_allclose(flat(left), w - q.T @ (q @ w), atol=1e-11)
    assert not inside
