"""Extreme eigenpairs by subspace iteration, in the memory of its columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree, UInt32

from igr.curvature.ritz import (
    RitzPairs,
    accepted,
    best_first,
    eigenvalue_errors,
    share_found,
)
from igr.curvature.vectors import (
    Divided,
    coordinates,
    minus,
    norm,
    orthogonalized,
    row,
    rows,
    scaled,
    transformed,
    unit_outside,
    with_row,
    without,
    working_dtype,
)
from igr.powers_of_two import power_of_two_near
from igr.progress.late_bar import Ticking

MAX_DEGREE = 4  # products on a column in a sweep; more gained nothing on networks
MAX_GROWTH = 1e3  # of the first column over the last in a sweep: digits that float32 can spare


class _State(NamedTuple):
    basis: Divided  # orthonormal columns: those found, then the others, best first
    projected: Float[Array, "c c"]  # Q'AQ, kept for the columns found
    values: Float[Array, " c"]
    residuals: Float[Array, " c"]  # measured for the columns found, estimated for the others
    found: Int[Array, ""]  # the number of leading columns that are left as they are
    worst: Float[Array, ""]  # the largest relative error among the k best
    slow: Bool[Array, ""]  # whether plain powers once failed to halve it
    sweeps: Int[Array, ""]
    products: Int[Array, ""]
    converged: Bool[Array, ""]
    stopped: Bool[Array, ""]


def subspace(
    product: Callable[[PyTree], PyTree],
    start: Divided,
    k: int,
    *,
    tol: Float[Array, ""],
    max_products: Int[Array, ""],
    seed: UInt32[Array, ""],
    bar: Ticking | None = None,
) -> RitzPairs:
    """The k eigenpairs of largest magnitude, from c > k columns that are overwritten in place.

    Metric regularization, Algorithm 1, corrected: that compares signed columns, which never settle
    at a negative eigenvalue, takes the diagonal of R for the values, and applies the matrix again
    to columns that have converged. Here a sweep measures each column q in its turn (Rayleigh
    quotient and residual, from the same product), leaves it where its eigenvalue is found, and
    else overwrites it with p(A) q; the Ritz vectors of the columns before the sweep, which the
    products have shown, turn the p(A) q towards eigenvectors, since p(A) (Q u) = (p(A) Q) u.
    p is x, or the Chebyshev polynomial that is small up to the smallest magnitude in the block
    (Zhou and Saad, 2007), of a degree that float32 can bear. The memory is that of the columns
    and a few vectors; those of the k best, the first block of the columns, are the result.
    """
    c = rows(start)
    dtype = working_dtype(start)
    eps = float(jnp.finfo(dtype).eps)
    columns = jnp.arange(c)

    def orthonormalized(basis: PyTree, first: Any, seed: UInt32[Array, ""]) -> PyTree:
        def one(j: Any, basis: PyTree) -> PyTree:
            before = (columns < j).astype(dtype)
            column = row(basis, j)
            w, _, inside = orthogonalized(column, basis, before)
            lost = inside | (norm(w) <= 10 * eps * norm(column))
            w = unit_outside(w, basis, before, seed + jnp.asarray(j, seed.dtype), lost)
            return with_row(basis, j, w)

        return jax.lax.fori_loop(jnp.asarray(first), c, one, basis)

    def unfinished(state: _State) -> Bool[Array, ""]:
        return ~(state.converged | state.stopped)

    def sweep(state: _State) -> _State:
        magnitudes = jnp.abs(state.values)
        edge = jnp.min(magnitudes)  # what lies below is damped
        degree = _degree(jnp.max(jnp.where(columns < state.found, 0, magnitudes)) / edge)
        degree = jnp.where(state.slow, degree, 1)
        # Leave enough to measure, at the end, the columns that are handed back.
        left = max_products - c - state.products
        active = c - state.found
        degree = jnp.where(active * degree <= left, degree, jnp.where(active <= left, 1, 0))
        edge = jnp.where(degree > 1, edge, 1)

        def column(j: Any, carry: Any) -> Any:
            basis, projected, values, residuals, keep, products = carry
            q = row(basis, j)

            def deflated(w: PyTree) -> tuple[PyTree, Float[Array, " c"]]:
                h = coordinates(basis, w)
                return without(w, h * keep, basis), h

            # What couples a column to one that was found is left to the Ritz step at the end.
            image, h = deflated(product(q))
            projected = projected.at[j].set(h)
            values = values.at[j].set(h[j])
            residuals = residuals.at[j].set(norm(minus(image, scaled(h[j], q))))
            kept = _found(values, residuals, k, tol)[j] | (degree == 0)

            def chebyshev(_: Any, pair: Any) -> Any:
                change, this = pair
                image = deflated(product(this))[0]
                # T(n+1) - T(n) = T(n) - T(n-1) + 2 (x - 1) T(n): both are overwritten in place,
                # where T(n) and T(n-1) would change places, by way of a third.
                change = jax.tree.map(
                    lambda d, y, x: d + (jnp.asarray(2 / edge, y.dtype) * y - 2 * x),
                    change, image, this,
                )  # fmt: skip
                return change, jax.tree.map(jnp.add, this, change)

            # What is kept is read again: held along the loop it would be one vector more.
            this = scaled(1 / edge, image)
            pair = (minus(this, q), this)
            _, new = jax.lax.fori_loop(1, jnp.where(kept, 1, degree), chebyshev, pair)
            new = jax.tree.map(lambda x, y: jnp.where(kept, x, y), row(basis, j), new)
            basis = with_row(basis, j, new)
            products = products + jnp.where(kept, 1, degree)
            return basis, projected, values, residuals, keep.at[j].set(kept), products

        basis, projected, values, residuals, keep, products = jax.lax.fori_loop(
            state.found,
            c,
            column,
            (
                state.basis,
                state.projected,
                state.values,
                state.residuals,
                columns < state.found,
                state.products,
            ),
        )
        # Row j saw the columns found, and those from j on before they were overwritten.
        seen = jnp.where(columns[:, None] < state.found, projected.T, projected)
        projected = jnp.triu(seen) + jnp.triu(seen, 1).T
        change, ritz_values = _turn(projected, keep)
        found = jnp.sum(keep)
        listed = jnp.where(columns < found, change @ values, ritz_values)
        unit = power_of_two_near(residuals)  # squares may be out of the range of the dtype
        residuals = jnp.sqrt(change**2 @ (residuals / unit) ** 2) * unit
        basis = transformed(basis, change)
        basis = orthonormalized(basis, found, seed + ((state.sweeps + 2) * c).astype(seed.dtype))

        best, errors = _best(listed, residuals, k)
        measured = jnp.all(best < found)
        converged = measured & jnp.all(
            errors <= accepted(listed[best], tol, jnp.max(jnp.abs(listed)))
        )
        # Before the residuals are measured of Ritz vectors, a rise says nothing.
        worst = jnp.max(residuals[best] / jnp.abs(listed[best]))
        if bar is not None:
            had = share_found(listed[best], errors, tol)
            bar.show(0, jnp.maximum(0.9 * had, products / max_products))
        slow = state.slow | ((state.sweeps > 2) & (worst > state.worst / 2))
        return _State(
            basis=basis,
            projected=change @ projected @ change.T,
            values=listed,
            residuals=residuals,
            # A gap that turned out smaller than it seemed: take all of them up again.
            found=jnp.where(measured & ~converged & (degree > 0), 0, found),
            worst=worst,
            slow=slow,
            sweeps=state.sweeps + 1,
            products=products,
            converged=converged,
            stopped=(degree == 0) | ~jnp.all(jnp.isfinite(listed)),
        )

    final = jax.lax.while_loop(
        unfinished,
        sweep,
        _State(
            basis=orthonormalized(start, 0, seed + jnp.uint32(c)),
            projected=jnp.zeros((c, c), dtype),
            values=jnp.zeros(c, dtype),
            residuals=jnp.full(c, jnp.inf, dtype),
            found=jnp.asarray(0),
            worst=jnp.asarray(jnp.inf, dtype),
            slow=jnp.asarray(False),
            sweeps=jnp.asarray(0),
            products=jnp.asarray(0, jnp.int32),
            converged=jnp.asarray(False),
            stopped=jnp.asarray(False),
        ),
    )
    values, weights = best_first(final.projected, final.found, "magnitude")
    values = jnp.where(columns < final.found, values, final.values)
    residuals = jnp.abs(weights).T @ final.residuals
    return RitzPairs(
        values=values[:k],
        vectors=transformed(final.basis, weights.T).first,
        residuals=residuals[:k],
        errors=eigenvalue_errors(values, residuals, k)[:k],
        converged=final.converged,
        products=final.products,
    )


def _degree(ratio: Float[Array, ""]) -> Int[Array, ""]:
    """The highest degree d >= 1 whose Chebyshev polynomial has T_d(ratio) < MAX_GROWTH."""
    degrees = jnp.arange(2, MAX_DEGREE + 1)
    growth = jnp.cosh(degrees * jnp.arccosh(jnp.maximum(ratio, 1)))
    return 1 + jnp.sum(growth < MAX_GROWTH, dtype=jnp.int32)


def _best(
    values: Float[Array, " c"], residuals: Float[Array, " c"], k: int
) -> tuple[Int[Array, " k"], Float[Array, " k"]]:
    """The indices of the columns with the k largest magnitudes, and bounds on their errors."""
    order = jnp.argsort(-jnp.abs(values))
    return order[:k], eigenvalue_errors(values, residuals, k)[order[:k]]


def _found(
    values: Float[Array, " c"], residuals: Float[Array, " c"], k: int, tol: Float[Array, ""]
) -> Bool[Array, " c"]:
    """Which columns are known well enough to be left as they are, a boolean array (c,).

    The error of one shifts the others by at most as much, so half of the last one's tolerance is
    allowed.
    """
    magnitudes = jnp.abs(values)
    least = jnp.sort(magnitudes)[-k]
    allowed = accepted(least, tol / 2, jnp.max(magnitudes))
    return (magnitudes >= least) & (eigenvalue_errors(values, residuals, k) <= allowed)


def _turn(
    projected: Float[Array, "c c"], keep: Bool[Array, " c"]
) -> tuple[Float[Array, "c c"], Float[Array, " c"]]:
    """The kept columns, then the Ritz vectors of the others (weights as rows), and their values."""
    c = keep.size
    found = jnp.sum(keep)
    others_first = jnp.argsort(keep)
    masked = jnp.where(keep | keep[:, None], 0, projected)[others_first][:, others_first]
    values, weights = best_first(masked, c - found, "magnitude")
    vectors = jnp.zeros_like(weights).at[others_first].set(weights) * ~keep[:, None]
    kept = jnp.eye(c, dtype=projected.dtype)[jnp.argsort(~keep)]
    rows = jnp.arange(c)
    change = jnp.where(rows[:, None] < found, kept, jnp.roll(vectors.T, found, axis=0))
    return change, jnp.roll(values, found)
