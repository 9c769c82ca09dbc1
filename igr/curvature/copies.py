"""The copies of repeated eigenvalues that one Krylov space does not show."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree, UInt32

from igr.curvature.lanczos import lanczos
from igr.curvature.ritz import RitzPairs, accepted, score
from igr.curvature.vectors import (
    combination,
    coordinates,
    generic_vector,
    minus,
    norm,
    orthogonalized,
    row,
    scaled,
    size,
    widened,
    with_row,
)

LEAST_ROOM = 8  # vectors of the basis of a search: with two it would be steepest ascent


def with_copies(
    found: RitzPairs,
    product: Callable[[PyTree], PyTree],
    *,
    basis_size: int,
    which: str,
    tol: Float[Array, ""],
    max_products: Int[Array, ""],
    seed: UInt32[Array, ""],
) -> RitzPairs:
    """The k pairs that were found, with the better ones that their Krylov space has no sign of.

    The space of one vector holds one vector of every eigenspace. From another start, with the
    pairs that were found deflated, Lanczos goes on until the best value left is known not to
    exceed the last of the k by more than the tolerance; a better one takes its place, and the
    search starts again. `converged` is said only after a search that found nothing.

    Each search takes at least 1.5 log(n) products (so much a random start needs to show an
    outlier), more where the next eigenvalue is close to the last one, and a copy one product more.

    Args:
        found: The k best pairs of the space of one vector, vectors orthonormal.
        product: The whole matrix.
        basis_size: The vectors there is room for, the pairs among them.
        which: As in `top_eigenpairs`.
        tol: The same.
        max_products: The most products, those that `found` took among them.
        seed: For the starts.
    """
    last = found.values.size - 1
    like = row(found.vectors, 0)
    least = max(2, math.ceil(1.5 * math.log(size(like))))
    room = max(basis_size - last - 1, LEAST_ROOM)  # what the pairs leave of the basis

    def search(state: tuple[RitzPairs, Bool[Array, ""]]) -> tuple[RitzPairs, Bool[Array, ""]]:
        pairs, _ = state
        basis, worst = pairs.vectors, pairs.values[last]
        largest = jnp.max(jnp.abs(pairs.values))
        enough = score(worst, which) + accepted(worst, tol, largest)

        def deflated(v: PyTree) -> PyTree:
            # The pairs that are known become copies of the last, which no search is after.
            inside = combination(coordinates(basis, v), basis)
            image = orthogonalized(product(minus(v, inside)), basis)[0]
            return jax.tree.map(jnp.add, image, scaled(worst, inside))

        fresh = seed + jnp.asarray(pairs.products + 1, seed.dtype) * jnp.uint32(0x9E3779B9)
        best = lanczos(
            deflated,
            orthogonalized(generic_vector(fresh, widened(like)), basis)[0],
            1,
            basis_size=min(room, size(like)),
            which=which,
            tol=tol,
            max_products=max_products - pairs.products - 1,
            seed=fresh,
            least=least,
            enough=enough,
        )
        pairs = pairs._replace(products=pairs.products + best.products)
        better = best.converged & (score(best.values[0], which) > enough)
        vector = row(best.vectors, 0)

        def measured() -> tuple[Array, Array]:
            image = product(vector)
            # What ties it to the pairs before: a two by two matrix bounds what each can shift.
            ties = jnp.abs(coordinates(pairs.vectors, image))
            gaps = jnp.abs(pairs.values - best.values[0])
            squared = ties * (ties / jnp.where(gaps > ties, gaps, 1))
            shift = jnp.sum(jnp.where(gaps > ties, squared, ties))
            return norm(minus(image, scaled(best.values[0], vector))), best.errors[0] + shift

        nothing = jnp.zeros_like(worst), jnp.zeros_like(worst)
        residual, error = jax.lax.cond(better, measured, lambda: nothing)
        # Of a product that is not finite nothing is kept. It is also what makes the vectors wait
        # to be overwritten until they were measured against.
        sound = jnp.isfinite(residual + error)
        better = better & sound
        new = best.values[0], residual, error
        old = pairs.values, pairs.residuals, pairs.errors
        old = tuple(
            x.at[last].set(jnp.where(better, y, x[last])) for x, y in zip(old, new, strict=True)
        )
        order = jnp.where(better, jnp.argsort(-score(old[0], which)), jnp.arange(last + 1))
        place = jnp.where(better, jnp.argmax(order == last), last + 1)

        def shifted(i: Any, vectors: PyTree) -> PyTree:
            i = last - i  # from the last one up, each overwritten by the one before it
            before = row(vectors, jnp.maximum(i - 1, 0))
            following = jax.tree.map(lambda x, y: jnp.where(i == place, x, y), vector, before)
            return with_row(vectors, i, following)

        # In place: a reordered copy would take the memory of the k vectors once more.
        vectors = jax.lax.fori_loop(0, last + 1 - place, shifted, pairs.vectors)
        pairs = RitzPairs(
            old[0][order], vectors, old[1][order], old[2][order], best.converged & sound,
            pairs.products + better,
        )  # fmt: skip
        return pairs, better

    def unfinished(state: tuple[RitzPairs, Bool[Array, ""]]) -> Bool[Array, ""]:
        pairs, better = state
        return better & (pairs.products + 1 < max_products)

    pairs, more = jax.lax.while_loop(unfinished, search, (found, found.converged))
    return pairs._replace(converged=pairs.converged & ~more)
