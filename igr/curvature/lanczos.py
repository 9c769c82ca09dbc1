"""Extreme eigenpairs by Lanczos with full reorthogonalization, thick restarts and locking."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree, UInt32

from igr.curvature.krylov import krylov_start, krylov_step
from igr.curvature.locked import (
    LEAST_ROOM,
    Locked,
    least_of_a_search,
    lock,
    measured,
    nothing_locked,
    ruled_out,
    with_copy,
    with_gaps,
)
from igr.curvature.ritz import (
    RitzPairs,
    accepted,
    best_first,
    eigenvalue_errors,
    score,
    share_found,
)
from igr.curvature.vectors import Divided, size, transformed, working_dtype
from igr.progress.late_bar import Ticking

FINEST = 0.02  # of the tolerance, that to which pairs near to copies may be sought


class _State(NamedTuple):
    basis: Divided  # Q in the rows 0..length-1, q in row `length`, 0 behind
    projected: Float[Array, "m m"]  # T, 0 outside its first `length` rows
    length: Int[Array, ""]
    values: Float[Array, " m"]  # the Ritz values of what is not locked, best first
    weights: Float[Array, "m m"]  # their vectors in the basis, as columns
    residuals: Float[Array, " m"]
    errors: Float[Array, " m"]
    decided: Bool[Array, ""]  # whether they are as good as is asked for
    pairs: Locked
    largest: Float[Array, ""]  # magnitude seen so far, of whose size rounding is
    tol: Float[Array, ""]  # what the first k are held to
    products: Int[Array, ""]
    finished: Bool[Array, ""]
    converged: Bool[Array, ""]


def lanczos(
    product: Callable[[PyTree], PyTree],
    start: PyTree,
    k: int,
    *,
    basis_size: int,
    which: str,
    tol: Float[Array, ""],
    max_products: Int[Array, ""],
    seed: UInt32[Array, ""],
    bar: Ticking | None = None,
) -> RitzPairs:
    """The k best eigenpairs of `product`, by Lanczos from `start` and from further start vectors.

    The basis Q grows by one vector, and one product, a step until it is full, then shrinks to its
    best Ritz vectors (Wu and Simon, "Thick-restart Lanczos method", 2000). Throughout

        A Q = Q T + b q e',

    so that the residual of a Ritz pair, |A Q s - Q s theta|, is |b s_last|: no product is spent
    on it. The memory is that of basis_size + 1 vectors, k of which are the result.

    One start vector shows only one copy of a repeated eigenvalue. Where the basis can hold the
    whole space it is filled before any answer, and the other copies appear. Otherwise, for k > 1,
    the pairs that were found are locked in the first k rows, and the same loop searches their
    orthogonal complement from another start, until the best value there is known not to exceed the
    last of the k by more than the tolerance. A better one takes its place among them, and the
    search starts again: `converged` is true only after a search that found nothing. A search ends
    as soon as its Krylov space rules out a better value (`ruled_out`: after a few products where
    the rest of the spectrum is far below), or else when its best value is known well enough, but
    not before 1.5 log(n) products. One more product measures the pair that was put in last.

    A further copy may lie so near to the pairs found that this cannot be decided to the tolerance.
    The k pairs are then computed once more to a tenth of it, and again if need be.

    A bar shows the share of the required decimals that the k values have, or of the products.
    """
    n = size(start)
    sign = -1 if which == "smallest" else 1
    dtype = working_dtype(start)
    searches = k > 1 and basis_size < n
    if searches:
        basis_size = min(max(basis_size, k + LEAST_ROOM), n)
        searches = basis_size < n
    least = n if (basis_size >= n and k > 1) else k
    kept = max(k, min(k + (basis_size - k) // 2, basis_size - 1))
    rows = jnp.arange(basis_size + 1)
    one_each = jnp.eye(basis_size + 1, dtype=dtype)

    def affordable(state: _State) -> Bool[Array, ""]:
        # A search leaves a product to measure what it finds.
        reserve = ((state.pairs.number > 0) & ~state.pairs.fresh).astype(state.products.dtype)
        finite = jnp.all(jnp.isfinite(state.projected))
        return finite & (state.products < max_products - (reserve if searches else 0))

    def grown(state: _State) -> _State:
        pairs, last, length = state.pairs, state.length, state.length + 1
        options = {}
        if searches:  # the product of a fresh start measures the pair put in last
            last = jnp.where(pairs.fresh, pairs.place, state.length)
            length = jnp.where(pairs.fresh, state.length, state.length + 1)
            options = {"fresh": pairs.fresh, "into": length}
        seeds = seed + 1 + state.products.astype(seed.dtype)  # `seed` itself may be the start's
        basis, projected, column, coupling = krylov_step(
            product, state.basis, state.projected, last, seeds, **options
        )
        number = pairs.number if searches else 0
        state = state._replace(
            basis=basis,
            projected=projected,
            length=length,
            pairs=measured(pairs, column[:k], coupling) if searches else pairs,
            products=state.products + 1,
        )

        def looked() -> tuple[Array, ...]:
            values, weights = best_first(projected, length, which, number)
            residuals = jnp.abs(coupling * weights[last])
            known = rows[:-1] < length - number
            largest = jnp.max(jnp.where(known, jnp.abs(values), 0), initial=state.largest)
            wanted: Array | int = k
            if searches:
                wanted = jnp.where(number > 0, 1, k)
            errors = eigenvalue_errors(values, residuals, wanted, known)
            good = errors <= accepted(values, state.tol, largest)
            decided = jnp.all(good | (rows[:-1] >= wanted)) & due
            if searches:
                # What is known not to exceed them need not be known better.
                best, enough = score(values[0], which), pairs.enough
                decided = decided | (due & (best + errors[0] <= enough))
                couplings = jnp.roll(jnp.append(jnp.diag(projected, 1), 0), -number)
                couplings = couplings.at[length - number - 1].set(coupling)
                whole = (number > 0) & (length - number == spent)  # it was not restarted
                none = ruled_out(enough, sign * values, couplings, known, n)
                if which == "magnitude":
                    none = none & ruled_out(enough, -values, couplings, known, n)
                decided = decided | (whole & none)
            return values, weights, residuals, errors, decided, largest

        # The last product there is is always looked at; so are a full basis and a NaN.
        spent = state.products - pairs.begun
        due = spent >= (jnp.where(number > 0, least_of_a_search(n), k) if searches else least)
        look = due | (number > 0) | (length >= basis_size) | ~affordable(state)
        unknown = (state.values, state.weights, state.residuals, state.errors, state.decided)
        values, weights, residuals, errors, decided, largest = jax.lax.cond(
            look & (length > number), looked, lambda: (*unknown, state.largest)
        )
        if bar is not None:
            # The search for copies is what is left once the k are locked.
            had = jnp.where(number > 0, 0.9, 0.8 * share_found(values[:k], errors[:k], tol))
            bar.show(state.products, jnp.maximum(had, state.products / max_products))
        return state._replace(
            values=values,
            weights=weights,
            residuals=residuals,
            errors=errors,
            decided=decided,
            largest=largest,
        )

    def cycle(state: _State) -> _State:
        may_grow = lambda s: ~s.decided & affordable(s) & (s.length < basis_size)  # noqa: E731
        state = jax.lax.while_loop(may_grow, grown, state)
        restart = ~state.decided & affordable(state)
        again = jnp.asarray(False)  # whether a search for copies follows
        anew = jnp.asarray(False)  # whether the k are to be found once more, and better
        best = state.values[:k], state.residuals[:k], state.errors[:k]
        # The rows to be, as if all were kept: what is locked, then the Ritz vectors, best first.
        change = one_each.at[:basis_size, :basis_size].set(state.weights.T)
        values = jnp.append(state.values, 0)
        pairs = state.pairs
        if searches:
            searching = pairs.number > 0
            better = searching & state.decided & (score(best[0][0], which) > pairs.enough)
            again = state.decided & (~searching | better)
            change = jnp.roll(change, pairs.number, 0)
            change = jnp.where(rows[:, None] < pairs.number, one_each, change)
            values = jnp.roll(values, pairs.number)
            pairs, order = with_copy(pairs, best, better, which)
            change = change.at[:k].set(change[order])
            pairs = lock(pairs, again, state.products, tol, which, state.largest)
            # Accepted by the gaps to the values known then; now there are the copies, too.
            gaps = with_gaps(pairs, tol, state.largest)
            pairs = pairs._replace(errors=jnp.where(searching, gaps, pairs.errors))
            good = jnp.all(pairs.errors <= accepted(pairs.values, tol, state.largest))
            ended = state.decided & ~again
            anew = ended & ~good & affordable(state) & (state.tol > FINEST * tol)
            pairs = pairs._replace(
                number=jnp.where(anew, 0, pairs.number),
                begun=jnp.where(anew, state.products, pairs.begun),
            )
            state = state._replace(
                decided=state.decided & (again | good),
                tol=jnp.where(anew, state.tol / 10, state.tol),
            )
        else:
            pairs = pairs._replace(values=best[0], residuals=best[1], errors=best[2])
        stay = rows < jnp.where(restart, kept, k)
        change = jnp.where(stay[:, None], change, 0)
        change = change.at[kept].set(jnp.where(restart, one_each[state.length], 0))
        values = jnp.where(stay, values.at[:k].set(pairs.values), 0)
        length = jnp.where(again, k, kept)
        if searches:  # from all of them, and a little of everything else
            together = jnp.where(rows < k, 1, jnp.where(rows == state.length, 0.1, 0))
            together = (together / jnp.linalg.norm(together)).astype(dtype)
            change = jnp.where(anew, jnp.zeros_like(change).at[0].set(together), change)
            values, length = jnp.where(anew, 0, values), jnp.where(anew, 0, length)
        return state._replace(
            basis=transformed(state.basis, change),
            projected=jnp.diag(values[:-1]),
            length=length.astype(state.length.dtype),
            decided=jnp.asarray(False),
            pairs=pairs,
            finished=~(again | restart | anew),
            converged=state.decided & ~again,
        )

    basis, projected = krylov_start(start, basis_size, dtype, k)
    final = jax.lax.while_loop(
        lambda state: ~state.finished,
        cycle,
        _State(
            basis=basis,
            projected=projected,
            length=jnp.asarray(0),
            values=jnp.zeros(basis_size, dtype),
            weights=jnp.eye(basis_size, dtype=dtype),
            residuals=jnp.full(basis_size, jnp.inf, dtype),
            errors=jnp.full(basis_size, jnp.inf, dtype),
            decided=jnp.asarray(False),
            pairs=nothing_locked(k, dtype),
            largest=jnp.zeros((), dtype),
            tol=tol,
            products=jnp.asarray(0, jnp.int32),
            finished=jnp.asarray(False),
            converged=jnp.asarray(False),
        ),
    )
    return RitzPairs(
        values=final.pairs.values,
        vectors=final.basis.first,
        residuals=final.pairs.residuals,
        errors=final.pairs.errors,
        converged=final.converged,
        products=final.products,
    )
