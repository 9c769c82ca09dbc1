"""Eigenpairs followed along a run, at a fixed number of products a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from igr.curvature.operator import wide_product
from igr.curvature.vectors import (
    HIGHEST,
    cast_like,
    norm,
    require_like,
    size,
    widened,
    working_dtype,
)
from igr.powers_of_two import power_of_two_near
from igr.pytrees import require_trained, trained_part
from igr.shown import short, table


class FollowedPairs(NamedTuple):
    """The Ritz pairs after one round of `follow_eigenpairs`.

    Attributes:
        values: Ritz values, the largest first, shape (k,).
        vectors: Orthonormal Ritz vectors: a pytree with the structure of the parameters and a
            leading axis of k; the `vectors` of the next call.
        residuals: |A q - value q|, shape (k,). Some eigenvalue lies within it.
    """

    values: Float[Array, " k"]
    vectors: PyTree
    residuals: Float[Array, " k"]

    __repr__ = short
    _repr_html_ = table


def follow_eigenpairs(
    product: Callable[[PyTree], PyTree], params: PyTree, vectors: PyTree
) -> FollowedPairs:
    """Updates the k largest eigenpairs of a slowly changing symmetric matrix, in 2 k products.

    One round of the block Krylov method: Rayleigh-Ritz in the span of the vectors and of their
    residuals. `top_eigenpairs` searches until it has converged; this costs the same at every step
    of a run, and converges over the steps. A direction that overtakes the last of the k enters
    through the residuals within a few rounds. Works inside jit, scan and vmap.

    Args:
        product: Linear and symmetric, on pytrees with the structure of the floating part of
            `params`.
        params: The pytree whose floating leaves give the shapes and dtypes of vectors.
        vectors: k vectors, orthonormal or not, as `Eigenpairs.vectors` or those of the last round.

    Returns:
        `FollowedPairs`: values, vectors, residuals.

    Raises:
        ValueError: If `vectors` does not have the structure of `params` with a leading axis, or
            holds more vectors than there are parameters.

    >>> scale = jnp.array([1.0, 5.0, 3.0, 0.5])
    >>> pairs = follow_eigenpairs(lambda v: scale * v, jnp.zeros(4), jnp.eye(4)[1:3] + 0.01)
    >>> print(pairs.values.round(4))
    [5. 3.]

    References:
        Saad, "Numerical methods for large eigenvalue problems" (2011), chapter 6.
    """
    like = require_trained(params)
    vectors = trained_part(vectors)
    leaves = jax.tree.leaves(vectors)
    k = leaves[0].shape[0] if leaves and leaves[0].ndim else 0
    require_like("vectors", vectors, like, (k,))
    if not 1 <= k <= size(like):
        raise ValueError(
            f"vectors must hold between 1 and {size(like)} vectors, the number of parameters; "
            f"got {k}."
        )
    dtype = working_dtype(like)
    wide = wide_product(product, like)

    def images(basis: PyTree) -> PyTree:
        return jax.lax.map(wide, basis)

    first, _ = _orthonormalized(widened(vectors), dtype)
    image = images(first)
    values, turn = _ritz(_gram(first, image, dtype))
    first, image = _mixed(turn, first), _mixed(turn, image)
    residual = jax.tree.map(
        lambda a, q: a - values.reshape(-1, *[1] * (a.ndim - 1)).astype(q.dtype) * q, image, first
    )
    # Twice: what rounding left of the vectors in their residuals would spoil the projection.
    for _ in range(2):
        inside = _gram(residual, first, dtype)
        residual = jax.tree.map(jnp.subtract, residual, _mixed(inside, first))
    second, usable = _orthonormalized(residual, dtype)
    second_image = images(second)
    coupling = _gram(second, image, dtype)
    corner = _gram(second, second_image, dtype)
    projected = jnp.block([[jnp.diag(values), coupling.T], [coupling, corner]])
    unit = power_of_two_near(projected)
    projected = projected / unit
    # A row that is no direction, being zero, must not count as the eigenvalue zero.
    low = -2 * jnp.linalg.norm(projected) - 1
    no_direction = jnp.concatenate([jnp.zeros(k, bool), ~usable])
    found, turn = _ritz(projected + jnp.diag(jnp.where(no_direction, low, 0)), k)
    found = found * unit
    vectors = jax.tree.map(jnp.add, _mixed(turn[:, :k], first), _mixed(turn[:, k:], second))
    image = jax.tree.map(jnp.add, _mixed(turn[:, :k], image), _mixed(turn[:, k:], second_image))
    apart = jax.tree.map(
        lambda a, q: a - found.reshape(-1, *[1] * (a.ndim - 1)).astype(q.dtype) * q, image, vectors
    )
    residuals = jax.vmap(norm)(apart).astype(dtype)
    return FollowedPairs(found, cast_like(vectors, like), residuals)


def _ritz(projected: Array, k: int | None = None) -> tuple[Array, Array]:
    """The k largest eigenvalues of a symmetric matrix, and their eigenvectors as rows."""
    values, weights = jnp.linalg.eigh((projected + projected.T) / 2)
    return values[::-1][:k], weights.T[::-1][:k]


def _gram(a: PyTree, b: PyTree, dtype: jnp.dtype) -> Float[Array, "m n"]:
    def leaf(x: Array, y: Array) -> Array:
        axes = tuple(range(1, x.ndim))
        return jnp.tensordot(x, y, (axes, axes), precision=HIGHEST).astype(dtype)

    return jax.tree.reduce(jnp.add, jax.tree.map(leaf, a, b))


def _mixed(weights: Float[Array, "m n"], basis: PyTree) -> PyTree:
    return jax.tree.map(
        lambda q: jnp.tensordot(weights.astype(q.dtype), q, 1, precision=HIGHEST), basis
    )


def _orthonormalized(basis: PyTree, dtype: jnp.dtype) -> tuple[PyTree, Array]:
    """Orthonormal rows with the same span, and which of them are not zero."""
    lengths = jax.vmap(norm)(basis).astype(dtype)
    weights = jnp.diag(jnp.where(lengths > 0, 1 / jnp.where(lengths > 0, lengths, 1), 0))
    basis = _mixed(weights, basis)
    usable = lengths > 0
    for _ in range(2):  # once leaves eps times the condition of the rows
        values, turn = jnp.linalg.eigh(_gram(basis, basis, dtype))
        usable = values > 100 * jnp.finfo(dtype).eps
        shrink = jnp.where(usable, 1 / jnp.sqrt(jnp.where(usable, values, 1)), 0)
        basis = _mixed(shrink[:, None] * turn.T, basis)
    return basis, usable
