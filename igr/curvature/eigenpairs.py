"""The extreme eigenvalues of a symmetric product, with their eigenvectors."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from igr.curvature.lanczos import lanczos
from igr.curvature.vectors import (
    cast_like,
    floating_part,
    random_vector,
    require_floating,
    size,
    widened,
)


class Eigenpairs(NamedTuple):
    """Eigenpairs, best first, and how far they can be trusted.

    Attributes:
        values: Signed eigenvalues.
        vectors: A pytree with the structure of the parameters and a leading axis of k, orthonormal
            (None where a leaf is not floating).
        residuals: |A q - lambda q| of each pair; an eigenvalue lies within it of each value.
        products: The number of products spent.
        converged: Whether every residual reached the tolerance.
    """

    values: Float[Array, " k"]
    vectors: PyTree
    residuals: Float[Array, " k"]
    products: Int[Array, ""]
    converged: Bool[Array, ""]


def top_eigenpairs(
    product: Callable[[PyTree], PyTree],
    params: PyTree,
    k: int,
    *,
    method: Literal["lanczos", "subspace"] = "lanczos",
    tol: float = 1e-3,
    max_products: int | None = None,
    key: PRNGKeyArray | None = None,
    initial: PyTree | None = None,
    which: Literal["magnitude", "largest", "smallest"] = "magnitude",
    basis_size: int | None = None,
) -> Eigenpairs:
    """The k top eigenpairs of the symmetric matrix behind `product`."""
    vector = require_floating(params)
    n = size(vector)
    if not 1 <= k <= n:
        raise ValueError(f"k must be between 1 and the number of parameters, {n}; got {k}.")
    if basis_size is None:
        basis_size = max(2 * k + 20, 20)
    basis_size = min(basis_size, n)
    if max_products is None:
        max_products = 100 * k + 100
    key = jax.random.key(0) if key is None else key
    return _solve(product, vector, key, initial, k, method, tol, max_products, basis_size, which)


@eqx.filter_jit
def _solve(product, like, key, initial, k, method, tol, max_products, basis_size, which):
    score = {"magnitude": jnp.abs, "largest": lambda x: x, "smallest": lambda x: -x}[which]
    wide = widened(like)

    def wide_product(v):
        return widened(floating_part(product(cast_like(v, like))))

    if initial is None:
        start = random_vector(key, wide)
    else:
        start = jax.tree.map(lambda x: jnp.sum(x, 0), widened(floating_part(initial)))
    found = lanczos(
        wide_product,
        start,
        k,
        tol=tol,
        max_products=max_products,
        basis_size=basis_size,
        score=score,
        key=key,
    )
    return Eigenpairs(
        found.values,
        cast_like(found.vectors, like),
        found.residuals,
        found.products,
        jnp.all(found.converged),
    )
