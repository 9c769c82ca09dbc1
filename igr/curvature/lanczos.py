"""Extreme eigenpairs by Lanczos with full reorthogonalization and thick restarts."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree, UInt32

from igr.curvature.krylov import krylov_start, krylov_step
from igr.curvature.ritz import RitzPairs, accepted, best_first, eigenvalue_errors, score
from igr.curvature.vectors import Divided, size, transformed, working_dtype


class _State(NamedTuple):
    basis: Divided  # Q in the rows 0..length-1, q in row `length`, 0 behind
    projected: Float[Array, "m m"]  # T, 0 outside its first `length` rows
    length: Int[Array, ""]
    values: Float[Array, " m"]  # the Ritz values, best first
    weights: Float[Array, "m m"]  # the Ritz vectors in the basis, as columns
    residuals: Float[Array, " m"]
    errors: Float[Array, " k"]
    converged: Bool[Array, ""]
    products: Int[Array, ""]


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
    least: int | None = None,
    enough: Float[Array, ""] | float = -jnp.inf,
) -> RitzPairs:
    """The k best eigenpairs of `product`, from the Krylov space of `start`.

    The basis Q grows by one product a step until it is full, then shrinks to its best Ritz
    vectors (Wu and Simon, "Thick-restart Lanczos method", 2000). Throughout

        A Q = Q T + b q e',

    so that the residual of a Ritz pair, |A Q s - Q s theta|, is |b s_last|: no product is spent
    on it. The memory is that of basis_size + 1 vectors, k of which are the result. From `least`
    products on it also stops, unconverged or not, where the best value is known not to exceed
    `enough`.
    """
    n = size(start)
    dtype = working_dtype(start)
    kept = max(k, min(k + (basis_size - k) // 2, basis_size - 1))
    # One start shows one copy of a repeated eigenvalue. Where the basis can hold the whole space
    # it is filled before any answer, and the other copies turn up.
    if least is None:
        least = n if (basis_size >= n and k > 1) else k

    def step(state: _State) -> _State:
        j = state.length
        basis, projected, coupling = krylov_step(
            product, state.basis, state.projected, j, seed + state.products.astype(seed.dtype)
        )

        def looked() -> tuple[Array, ...]:
            values, weights = best_first(projected, j + 1, which)
            residuals = jnp.abs(coupling * weights[j])
            known = jnp.arange(basis_size) <= j
            errors = eigenvalue_errors(values, residuals, k, known)[:k]
            allowed = accepted(values[:k], tol, jnp.max(jnp.where(known, jnp.abs(values), 0)))
            done = jnp.all(errors <= allowed) | (score(values[0], which) + errors[0] <= enough)
            return values, weights, residuals, errors, done

        # The last product allowed is always looked at; so are a full basis and a NaN.
        spent = state.products + 1
        look = (spent >= least) | (j + 1 >= basis_size) | (spent >= max_products)
        look = look | ~jnp.all(jnp.isfinite(projected))
        unknown = (state.values, state.weights, state.residuals, state.errors, state.converged)
        values, weights, residuals, errors, converged = jax.lax.cond(look, looked, lambda: unknown)
        return _State(
            basis=basis,
            projected=projected,
            length=j + 1,
            values=values,
            weights=weights,
            residuals=residuals,
            errors=errors,
            converged=converged & (spent >= least),
            products=spent,
        )

    def unfinished(state: _State) -> Bool[Array, ""]:
        finite = jnp.all(jnp.isfinite(state.projected))
        return ~state.converged & (state.products < max_products) & finite

    def cycle(state: _State) -> _State:
        state = jax.lax.while_loop(lambda s: unfinished(s) & (s.length < basis_size), step, state)
        change = jnp.zeros((basis_size + 1, basis_size + 1), dtype)
        change = change.at[:kept, :basis_size].set(state.weights.T[:kept])
        change = change.at[kept, state.length].set(1)
        return state._replace(
            basis=transformed(state.basis, change),
            projected=jnp.diag(jnp.where(jnp.arange(basis_size) < kept, state.values, 0)),
            length=jnp.asarray(kept),
        )

    basis, projected = krylov_start(start, basis_size, dtype, k)
    final = jax.lax.while_loop(
        unfinished,
        cycle,
        _State(
            basis=basis,
            projected=projected,
            length=jnp.asarray(0),
            values=jnp.zeros(basis_size, dtype),
            weights=jnp.eye(basis_size, dtype=dtype),
            residuals=jnp.full(basis_size, jnp.inf, dtype),
            errors=jnp.full(k, jnp.inf, dtype),
            converged=jnp.asarray(False),
            products=jnp.asarray(0, jnp.int32),
        ),
    )
    return RitzPairs(
        values=final.values[:k],
        vectors=final.basis.first,
        residuals=final.residuals[:k],
        errors=final.errors,
        converged=final.converged,
        products=final.products,
    )
