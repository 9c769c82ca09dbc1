"""The copies of repeated eigenvalues that one Krylov space does not show."""

import math
from collections.abc import Callable

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
)


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
        basis_size: That of each search.
        which: As in `top_eigenpairs`.
        tol: The same.
        max_products: The most products, those that `found` took among them.
        seed: For the starts.
    """
    last = found.values.size - 1
    like = row(found.vectors, 0)
    least = min(basis_size, max(2, math.ceil(1.5 * math.log(size(like)))))

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
            basis_size=basis_size,
            which=which,
            tol=tol,
            max_products=max_products - pairs.products - 1,
            seed=fresh,
            least=least,
            enough=enough,
        )
        pairs = pairs._replace(products=pairs.products + best.products)
        better = best.converged & (score(best.values[0], which) > enough)
        pairs = jax.lax.cond(better, _inserted, lambda pairs, *_: pairs, pairs, best)
        return pairs._replace(converged=best.converged), better

    def _inserted(pairs: RitzPairs, best: RitzPairs) -> RitzPairs:
        value, vector = best.values[0], row(best.vectors, 0)
        image = product(vector)
        # What ties it to the pairs before: a two by two matrix bounds what each tie can shift.
        ties = jnp.abs(coordinates(pairs.vectors, image))
        gaps = jnp.abs(pairs.values - value)
        squared = ties * (ties / jnp.where(gaps > ties, gaps, 1))
        shift = jnp.sum(jnp.where(gaps > ties, squared, ties))
        residual = norm(minus(image, scaled(value, vector)))
        values = pairs.values.at[last].set(value)
        order = jnp.argsort(-score(values, which))
        vectors = jax.tree.map(lambda q, x: q.at[last].set(x)[order], pairs.vectors, vector)
        return pairs._replace(
            values=values[order],
            vectors=vectors,
            residuals=pairs.residuals.at[last].set(residual)[order],
            errors=pairs.errors.at[last].set(best.errors[0] + shift)[order],
            products=pairs.products + 1,
        )

    def unfinished(state: tuple[RitzPairs, Bool[Array, ""]]) -> Bool[Array, ""]:
        pairs, better = state
        return better & (pairs.products + 1 < max_products)

    pairs, more = jax.lax.while_loop(unfinished, search, (found, found.converged))
    return pairs._replace(converged=pairs.converged & ~more)
