"""Ritz pairs: approximate eigenpairs from a basis, their order, and what they are worth."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from igr.shown import short, table


class RitzPairs(NamedTuple):
    """The k best pairs a solver found, in the dtype it worked in."""

    values: Float[Array, " k"]
    vectors: PyTree
    residuals: Float[Array, " k"]
    errors: Float[Array, " k"]
    converged: Bool[Array, ""]
    products: Int[Array, ""]

    __repr__ = short
    _repr_html_ = table


def score(values: Float[Array, "*m"], which: str) -> Float[Array, "*m"]:
    """What is largest for the eigenvalues that are asked for."""
    return {"magnitude": jnp.abs(values), "largest": values, "smallest": -values}[which]


def best_first(
    projected: Float[Array, "m m"],
    length: Int[Array, ""] | int,
    which: str,
    first: Int[Array, ""] | int = 0,
) -> tuple[Float[Array, " m"], Float[Array, "m m"]]:
    """Eigenvalues and eigenvectors (columns) of the rows from `first` to `length`, best first.

    What belongs to the other rows follows at the end.
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
    """Bounds on the distance of Ritz values to eigenvalues, the first k of which matter.

    The residual r always bounds it; so does r^2 / gap (Kato and Temple), with the gap to the
    rest of the spectrum, here to the nearest other Ritz value less the residual of that one.
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
    """What share of the decimals asked for the values have on average; for a bar, no bound."""
    scale = jnp.max(jnp.abs(values))
    scale = jnp.where(scale > 0, scale, 1)
    had = jnp.log(errors / scale) / jnp.log(accepted(values, tol, scale) / scale)
    return jnp.mean(jnp.clip(jnp.nan_to_num(had), 0, 1))


def accepted(
    values: Float[Array, "*k"], tol: Float[Array, ""], scale: Float[Array, ""]
) -> Float[Array, "*k"]:
    """The errors at which eigenvalues count as found: relative, down to rounding at `scale`."""
    return jnp.maximum(tol * jnp.abs(values), 10 * jnp.finfo(values.dtype).eps * scale)
