"""Eigenpairs that Lanczos has found and locked, and the search for further copies of them."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from igr.curvature.ritz import accepted, score
from igr.curvature.vectors import norm

UNSEEN = 1e-6  # the probability that a copy goes unseen
LEAST_ROOM = 8  # vectors of the basis of a search: with two it would be steepest ascent


class Locked(NamedTuple):
    """The k eigenpairs whose vectors are the first rows of the basis, once they are found.

    Attributes:
        values: The eigenvalues, best first; so are residuals and errors.
        residuals: The norms |A q - value q|.
        errors: Bounds on the errors of the values.
        number: 0 until they are found, then k.
        enough: The score that a value outside of them has to exceed to count as a copy.
        place: The row of the pair that was put in last.
        unmeasured: Whether that pair's residual still leaves out the product's part along the other
            pairs.
        fresh: Whether the next product measures that pair and starts a search.
        begun: The number of products spent before the search began.
    """

    values: Float[Array, " k"]
    residuals: Float[Array, " k"]
    errors: Float[Array, " k"]
    number: Int[Array, ""]
    enough: Float[Array, ""]
    place: Int[Array, ""]
    unmeasured: Bool[Array, ""]
    fresh: Bool[Array, ""]
    begun: Int[Array, ""]


def nothing_locked(k: int, dtype: jnp.dtype) -> Locked:
    """The `Locked` before the first k pairs are found: no pairs, infinite errors."""
    return Locked(
        values=jnp.zeros(k, dtype),
        residuals=jnp.full(k, jnp.inf, dtype),
        errors=jnp.full(k, jnp.inf, dtype),
        number=jnp.asarray(0),
        enough=jnp.asarray(-jnp.inf, dtype),
        place=jnp.asarray(k - 1),
        unmeasured=jnp.asarray(False),
        fresh=jnp.asarray(False),
        begun=jnp.asarray(0, jnp.int32),
    )


def least_of_a_search(n: int) -> int:
    """The number of products in which a generic start shows an outlier, in n dimensions."""
    return max(2, math.ceil(1.5 * math.log(n)))


def ruled_out(
    beyond: Array,
    ritz_values: Float[Array, " m"],
    couplings: Float[Array, " m"],
    known: Bool[Array, " m"],
    n: int,
) -> Bool[Array, ""]:
    """Whether a Krylov space shows that its matrix has no eigenvalue larger than `beyond`.

    The vector after the space is p(A) b, with b the unit vector it began with and
    p(x) = prod_i (x - theta_i) / beta_i. It has length one, so no eigenvalue x has p(x) > 1/c with
    c the size of b's component in its direction. Beyond the Ritz values p grows, and for a generic
    b in n dimensions c is less than s sqrt(pi / (2 n)) with probability at most s: here `UNSEEN`
    (van Dorsselaer, Hochstenbach and van der Vorst, "Computing probabilistic bounds for extreme
    eigenvalues of symmetric matrices with the Lanczos method", 2000).

    Args:
        beyond: The value.
        ritz_values: theta_i, at the entries that are `known`.
        couplings: beta_i, at the same entries.
        known: Which entries count.
        n: The dimension of the matrix.
    """
    apart = beyond - ritz_values
    largest = jnp.all((apart > 0) | ~known)
    growth = jnp.log(jnp.where(known, apart, 1)) - jnp.log(jnp.where(known, couplings, 1))
    needed = math.log(math.sqrt(2 * n / math.pi) / UNSEEN)
    return largest & (jnp.sum(growth) > needed)


def with_copy(
    locked: Locked, best: tuple[Array, Array, Array], better: Bool[Array, ""], which: str
) -> tuple[Locked, Int[Array, " k"]]:
    """The locked pairs with the first of `best` in place of the last where it is `better`, sorted.

    `best` holds values, residuals and errors; before any pair is locked, all of it is taken. The
    second value is the row of the basis in which each pair stands, where the best vectors follow
    the k locked ones.
    """
    k = locked.values.size
    old = locked.values, locked.residuals, locked.errors

    def mixed(x: Array, y: Array) -> Array:
        return jnp.where(locked.number > 0, x.at[-1].set(jnp.where(better, y[0], x[-1])), y)

    new = [mixed(x, y) for x, y in zip(old, best, strict=True)]
    order = jnp.where(better, jnp.argsort(-score(new[0], which)), jnp.arange(k))
    values, residuals, errors = (x[order] for x in new)
    locked = locked._replace(
        values=values,
        residuals=residuals,
        errors=errors,
        place=jnp.argmax(order == k - 1).astype(locked.place.dtype),
        unmeasured=better,
    )
    return locked, jnp.where(better & (order == k - 1), k, order)


def measured(locked: Locked, column: Float[Array, " k"], coupling: Float[Array, ""]) -> Locked:
    """The locked pairs, with the residual of the pair in row `place` measured by its own product.

    Args:
        locked: The pairs.
        column: The coordinates of the product of that pair's vector in the pairs' vectors.
        coupling: The norm of the product's part outside of them.
    """
    own = jnp.arange(locked.values.size) == locked.place
    value = locked.values[locked.place]
    residual = norm(jnp.append(jnp.where(own, column - value, column), coupling))
    # What ties it to each of the others: a two by two matrix bounds what both can shift.
    ties = jnp.where(own, 0, jnp.abs(column))
    gaps = jnp.where(own, 1, jnp.abs(locked.values - value))
    squared = ties * (ties / jnp.where(gaps > ties, gaps, 1))
    shift = jnp.sum(jnp.where(gaps > ties, squared, ties))
    now = own & locked.unmeasured & locked.fresh
    return locked._replace(
        residuals=jnp.where(now, residual, locked.residuals),
        errors=jnp.where(now, locked.errors + shift, locked.errors),
        unmeasured=jnp.asarray(False),
        fresh=jnp.asarray(False),
    )


def with_gaps(
    locked: Locked, tol: Float[Array, ""], largest: Float[Array, ""]
) -> Float[Array, " k"]:
    """Error bounds of the locked values, improved by the gaps between them, none below an earlier.

    Values that agree to `tol`, or to rounding at the `largest` magnitude, are copies of one value:
    the distance between them is no gap.
    """
    values, residuals = locked.values, locked.residuals
    apart = jnp.abs(values[:, None] - values)
    others = apart > accepted(values, tol, largest)[:, None]
    gap = jnp.min(jnp.where(others, apart - residuals, jnp.inf), axis=1)
    squared = residuals * (residuals / jnp.where(gap > 0, gap, 1))
    bound = jnp.where(gap > 0, jnp.minimum(residuals, squared), residuals)
    return jnp.maximum(locked.errors, bound)


def lock(
    locked: Locked,
    again: Bool[Array, ""],
    products: Int[Array, ""],
    tol: Float[Array, ""],
    which: str,
    largest: Float[Array, ""],
) -> Locked:
    """The pairs, locked for a search of further copies where `again` is true."""
    worst = locked.values[-1]
    enough = score(worst, which) + accepted(worst, tol, largest)
    return locked._replace(
        number=jnp.where(again, locked.values.size, locked.number).astype(locked.number.dtype),
        enough=jnp.where(again, enough, locked.enough),
        fresh=again,
        begun=jnp.where(again, products + 1, locked.begun).astype(locked.begun.dtype),
    )
