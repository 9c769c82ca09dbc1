"""One step in a Krylov space, with full reorthogonalization."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree, UInt32

from igr.curvature.vectors import (
    Divided,
    norm,
    orthogonalized,
    row,
    scaled,
    size,
    unit_outside,
    with_row,
)


def krylov_start(
    start: PyTree, width: int, dtype: Any, first: int | None = None
) -> tuple[PyTree, Float[Array, "m m"]]:
    """A basis with room for `width` vectors and the one after them, and an empty projection.

    With `first`, the basis is a `Divided` one, with so many vectors in its first block.
    """

    def zeros(m: int) -> PyTree:
        return jax.tree.map(lambda x: jnp.zeros((m, *x.shape), x.dtype), start)

    empty = zeros(width + 1) if first is None else Divided(zeros(first), zeros(width + 1 - first))
    basis = with_row(empty, 0, scaled(1 / norm(start), start))
    return basis, jnp.zeros((width, width), dtype)


def krylov_step(
    product: Callable[[PyTree], PyTree],
    basis: PyTree,
    projected: Float[Array, "m m"],
    j: Any,
    seed: UInt32[Array, ""],
) -> tuple[PyTree, Float[Array, "m m"], Float[Array, ""]]:
    """The basis with vector j + 1, Q'AQ with column j, and the coupling of the two vectors.

    With q the new vector and b the coupling, A Q = Q T + b q e'. Where the space is exhausted b is
    0 and q a direction outside it, another for every `seed`; where nothing is outside, 0.
    """
    m = projected.shape[0]
    w, column, inside = orthogonalized(product(row(basis, j)), basis)
    projected = projected.at[j].set(column[:m]).at[:, j].set(column[:m])
    coupling = norm(w)
    full = j + 1 >= size(row(basis, 0))
    rounding = 10 * jnp.finfo(projected.dtype).eps * norm(projected)
    exhausted = inside | (coupling <= rounding)
    w = unit_outside(w, basis, 1.0, seed, exhausted & ~full)
    w = jax.tree.map(lambda x: jnp.where(full, 0, x), w)
    coupling = jnp.where(exhausted | full, 0, coupling)
    return with_row(basis, j + 1, w), projected, coupling
