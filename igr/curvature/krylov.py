"""One step of Lanczos with full reorthogonalization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree, UInt32

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
    """A Krylov basis with `start` as its first vector, and a zero (width, width) projected matrix.

    The basis has room for width + 1 vectors. With `first` it is a `Divided` one, with that many
    vectors in its first block.
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
    *,
    fresh: Bool[Array, ""] | None = None,
    into: Any = None,
) -> tuple[PyTree, Float[Array, "m m"], Float[Array, " m"], Float[Array, ""]]:
    """One Lanczos step: the basis with a further vector, T with column j, the column, the coupling.

    T = Q'AQ is `projected`. With q the new vector, b the coupling and j the last column,
    A Q = Q T + b q e'. Where the Krylov space is exhausted b is 0 and q a direction outside it,
    which depends on `seed`; q is 0 if the basis spans the whole space. Where `fresh`, q is such a
    direction in any case, and b the norm of A q_j outside the basis. The new vector becomes row
    `into`, j + 1 if None.
    """
    m = projected.shape[0]
    w, column, inside = orthogonalized(product(row(basis, j)), basis)
    column = column[:m]
    projected = projected.at[j].set(column).at[:, j].set(column)
    coupling = norm(w)
    into = j + 1 if into is None else into
    full = into >= size(row(basis, 0))
    rounding = 10 * jnp.finfo(projected.dtype).eps * norm(projected)
    exhausted = inside | (coupling <= rounding)
    coupling = jnp.where(exhausted | full, 0, coupling)
    if fresh is not None:
        exhausted = exhausted | fresh
    w = unit_outside(w, basis, 1.0, seed, exhausted & ~full)
    w = jax.tree.map(lambda x: jnp.where(full, 0, x), w)
    return with_row(basis, into, w), projected, column, coupling
