"""Ritz pairs: approximate eigenpairs from a basis, their order and error bounds."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from igr.shown import short, table


class RitzPairs(NamedTuple):
    """The k best Ritz pairs of a solver, in the dtype it worked in."""

    values: Float[Array, " k"]
    vectors: PyTree
    residuals: Float[Array, " k"]
    errors: Float[Array, " k"]
    converged: Bool[Array, ""]
    products: Int[Array, ""]

    __repr__ = short
    _repr_html_ = table


def score(values: Float[Array, "*m"], which: str) -> Float[Array, "*m"]:
    """The number by which eigenvalues are ranked for the end of the spectrum asked for."""
    return {"magnitude": jnp.abs(values), "largest": values, "smallest": -values}[which]


def best_first(
    projected: Float[Array, "m m"],
    length: Int[Array, ""] | int,
    which: str,
    first: Int[Array, ""] | int = 0,
) -> tuple[Float[Array, " m"], Float[Array, "m m"]]:
    """The eigenvalues and eigenvectors (columns) of rows `first` to `length`, best first.

    Values and vectors of the other rows follow at the end.
    """
    m = projected.shape[0]
    rows = jnp.arange(m)
    inside = (rows >= first) & (rows < length)
    # eigh returns ascending values: far below the others, those of the other rows come first.
    # Scaled first, since what is far from one in size would be lost beside them.
    projected = jnp.where(inside & inside[:, None], projected, 0)
    size = jnp.max(jnp.abs(projected))
    size = jnp.where(size > 0, size, 1)
    projected = projected / size
    below = jnp.where(inside, 0, -2 * jnp.linalg.norm(projected) - 1)
    values, weights = jnp.linalg.eigh(projected + jnp.diag(below))
    values = values * size
    outside = rows < m - length + first
    order = jnp.argsort(jnp.where(outside, jnp.inf, -score(values, which)))
    return values[order], weights[:, order]


def eigenvalue_errors(
    values: Float[Array, " m"],
    residuals: Float[Array, " m"],
    k: Int[Array, ""] | int,
    known: Bool[Array, " m"] | None = None,
) -> Float[Array, " m"]:
    """Bounds on the distance of each Ritz value to the nearest eigenvalue, (m,).

    The residual r is such a bound; so is r^2 / gap (Kato and Temple), with the gap to the rest of
    the spectrum, here to the nearest other Ritz value less the residual of that one. The first k
    values are those that matter; entries that are not `known` are no other Ritz values.
    """
    m = values.size
    known = jnp.ones(m, bool) if known is None else known
    apart = jnp.abs(values[:, None] - values) - residuals
    gap = jnp.min(jnp.where(known & ~jnp.eye(m, dtype=bool), apart, jnp.inf), axis=1)
    # With one or none known beside the k that matter there is no gap to speak of.
    usable = (gap > 0) & (jnp.sum(known) >= k + 2)
    squared = residuals * (residuals / jnp.where(usable, gap, 1))
    return jnp.where(usable, jnp.minimum(residuals, squared), residuals)


def share_found(
    values: Float[Array, " k"], errors: Float[Array, " k"], tol: Float[Array, ""]
) -> Float[Array, ""]:
    """The mean share of the required decimals that the values have: for a bar, and no bound."""
    scale = jnp.max(jnp.abs(values))
    scale = jnp.where(scale > 0, scale, 1)
    had = jnp.log(errors / scale) / jnp.log(accepted(values, tol, scale) / scale)
    return jnp.mean(jnp.clip(jnp.nan_to_num(had), 0, 1))


def accepted(
    values: Float[Array, "*k"], tol: Float[Array, ""], scale: Float[Array, ""]
) -> Float[Array, "*k"]:
    """The errors at which eigenvalues count as found: tol times the value, or rounding."""
    return jnp.maximum(tol * jnp.abs(values), 10 * jnp.finfo(values.dtype).eps * scale)
