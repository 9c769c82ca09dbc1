"""One step in a Krylov space, with full reorthogonalization."""

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
    *,
    fresh: Bool[Array, ""] | None = None,
    into: Any = None,
) -> tuple[PyTree, Float[Array, "m m"], Float[Array, " m"], Float[Array, ""]]:
    """The basis with one vector more, Q'AQ with column j, that column, and a coupling.

    With q the new vector, b the coupling and j the last one, A Q = Q T + b q e'. Where the space
    is exhausted b is 0 and q a direction outside it, another for every `seed`; where nothing is
    outside, 0. Where `fresh`, q is such a direction whatever j is, and b the norm of what is
    outside the basis. The new vector is put `into` row j + 1 where nothing else is said.
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
