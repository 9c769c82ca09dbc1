"""Extreme eigenpairs by Lanczos with full reorthogonalization and thick restarts."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from igr.curvature.vectors import (
    combination,
    coordinates,
    norm,
    random_vector,
    scaled,
    size,
    working_dtype,
)


class RitzPairs(NamedTuple):
    """What the solvers hand back: best first, vectors in the dtype they were computed in."""

    values: Float[Array, " k"]
    vectors: PyTree
    residuals: Float[Array, " k"]
    converged: Bool[Array, " k"]
    products: Int[Array, ""]


def lanczos(
    product: Callable[[PyTree], PyTree],
    start: PyTree,
    k: int,
    *,
    tol: float,
    max_products: int,
    basis_size: int,
    score: Callable[[Array], Array],
    key: PRNGKeyArray,
) -> RitzPairs:
    """The k eigenpairs of highest score.

    The basis Q grows by one product a step until it is full, then shrinks to its best Ritz
    vectors (Wu and Simon, "Thick-restart Lanczos", 2000). Throughout A Q = Q T + b q e', so that
    the residual |A Q s - Q s theta| of a Ritz pair is |b s_last|, without another product.
    """
    kept = min(k + (basis_size - k) // 2, basis_size - 1) if basis_size > k else k
    n = size(start)
    dtype = working_dtype(start)
    eps = jnp.finfo(dtype).eps
    rows = jnp.arange(basis_size)

    def orthogonalized(basis: PyTree, w: PyTree) -> tuple[PyTree, Array]:
        """`w` without its part in the basis (twice is enough), and the coordinates of that."""
        once = coordinates(basis, w)
        w = jax.tree.map(jnp.subtract, w, combination(once, basis))
        again = coordinates(basis, w)
        return jax.tree.map(jnp.subtract, w, combination(again, basis)), once + again

    def step(state: "_State") -> "_State":
        j = state.length
        w = product(jax.tree.map(lambda q: q[j], state.basis))
        w, column = orthogonalized(state.basis, w)
        column = column[:basis_size]
        projected = state.projected.at[j].set(column).at[:, j].set(column)
        scale = jnp.linalg.norm(projected)
        coupling = norm(w)
        # An invariant subspace is exhausted: go on from a random direction outside it.
        broken = (coupling <= 10 * eps * scale) | (j + 1 >= n)

        def restarted() -> PyTree:
            fresh = random_vector(jax.random.fold_in(key, state.products), start)
            return orthogonalized(state.basis, fresh)[0]

        w = jax.lax.cond(broken, restarted, lambda: w)
        length = norm(w)
        w = scaled(jnp.where(length > 0, 1 / length, 0), w)
        coupling = jnp.where(broken, 0, coupling)
        basis = jax.tree.map(lambda q, x: q.at[j + 1].set(x), state.basis, w)
        values, weights = _best_first(projected, j + 1, score)
        return _State(
            basis=basis,
            projected=projected,
            length=j + 1,
            coupling=coupling,
            values=values,
            weights=weights,
            residuals=jnp.abs(coupling * weights[j]),
            products=state.products + 1,
        )

    def converged(state: "_State") -> Array:
        return (state.residuals[:k] <= tol * jnp.abs(state.values[:k])) & (k <= state.length)

    def unfinished(state: "_State") -> Array:
        finite = jnp.all(jnp.isfinite(state.coupling))
        return ~jnp.all(converged(state)) & (state.products < max_products) & finite

    def cycle(state: "_State") -> "_State":
        state = jax.lax.while_loop(lambda s: unfinished(s) & (s.length < basis_size), step, state)
        ritz = combination(state.weights[:, :kept].T, _rows(state.basis, basis_size))
        following = jax.tree.map(lambda q: q[basis_size], state.basis)
        basis = jax.tree.map(
            lambda q, r, f: jnp.zeros_like(q).at[:kept].set(r).at[kept].set(f),
            state.basis,
            ritz,
            following,
        )
        return state._replace(
            basis=basis,
            projected=jnp.diag(jnp.where(rows < kept, state.values, 0)),
            length=jnp.asarray(kept),
        )

    unit = scaled(1 / norm(start), start)
    initial = _State(
        basis=jax.tree.map(
            lambda x: jnp.zeros((basis_size + 1, *x.shape), x.dtype).at[0].set(x), unit
        ),
        projected=jnp.zeros((basis_size, basis_size), dtype),
        length=jnp.asarray(0),
        coupling=jnp.asarray(0.0, dtype),
        values=jnp.zeros(basis_size, dtype),
        weights=jnp.eye(basis_size, dtype=dtype),
        residuals=jnp.full(basis_size, jnp.inf, dtype),
        products=jnp.asarray(0),
    )
    final = jax.lax.while_loop(unfinished, cycle, initial)
    return RitzPairs(
        values=final.values[:k],
        vectors=_rows(final.basis, k),
        residuals=final.residuals[:k],
        converged=converged(final),
        products=final.products,
    )


class _State(NamedTuple):
    basis: PyTree  # rows 0..length-1 orthonormal, row `length` the next
    projected: Float[Array, "m m"]  # T, zero outside its first `length` rows
    length: Int[Array, ""]
    coupling: Float[Array, ""]  # b
    values: Float[Array, " m"]  # Ritz values, best first
    weights: Float[Array, "m m"]  # their vectors in the basis, as columns
    residuals: Float[Array, " m"]
    products: Int[Array, ""]


def _best_first(projected: Array, length: Array, score: Callable[[Array], Array]):
    """Eigenpairs of the leading block of `length` rows, highest score first."""
    m = projected.shape[0]
    outside = jnp.arange(m) >= length
    below = -2 * jnp.linalg.norm(projected) - 1  # eigh sorts: what is outside comes first
    values, weights = jnp.linalg.eigh(projected + jnp.diag(jnp.where(outside, below, 0)))
    order = jnp.argsort(jnp.where(jnp.arange(m) < m - length, -jnp.inf, score(values)))[::-1]
    return values[order], weights[:, order]


def _rows(basis: PyTree, count: int) -> PyTree:
    return jax.tree.map(lambda q: q[:count], basis)
