"""A function of a symmetric matrix, applied to a vector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from igr.curvature.krylov import krylov_start, krylov_step
from igr.curvature.vectors import (
    cast_like,
    combination,
    norm,
    row,
    scaled,
    size,
    widened,
    working_dtype,
)
from igr.meshes import on_any_mesh


@on_any_mesh(like=2)
def function_times_vector(
    function: Callable[[Float[Array, " m"]], Float[Array, " m"]],
    product: Callable[[PyTree], PyTree],
    vector: PyTree,
    steps: int,
) -> PyTree:
    """The vector f(A) v by Lanczos from v: |v| Q f(T) e_1, with T = Q'AQ of `steps` products.

    Exact once the steps reach the number of distinct eigenvalues in whose eigenspaces v has a part.
    Works inside jit; the memory is that of steps + 1 vectors.

    Args:
        function: f, elementwise on an array of eigenvalues.
        product: Linear and symmetric, on vectors in the dtypes of `vector`.
        vector: v, a pytree of floating arrays. If it is zero, so is the result.
        steps: The number of products, at least 1.

    Returns:
        A pytree with the structure, shapes and dtypes of `vector`.

    >>> scale = jnp.array([1.0, -4.0, 3.0])
    >>> print(function_times_vector(jnp.abs, lambda v: scale * v, jnp.ones(3), 3).round(6))
    [1. 4. 3.]

    References:
        Golub and Meurant, "Matrices, moments and quadrature with applications" (2010), chapter 3.
    """
    if not size(vector):
        return vector
    start, dtype = widened(vector), working_dtype(vector)
    steps = min(steps, size(vector))
    length = norm(start)
    basis = jax.tree.map(lambda x: jnp.where(length == 0, jnp.ones_like(x), x), start)

    def wide(v: PyTree) -> PyTree:
        return widened(product(cast_like(v, vector)))

    def step(j: Any, carry: tuple[PyTree, Array]) -> tuple[PyTree, Array]:
        basis, projected = carry
        # From an exhausted space on, what follows is uncoupled and has no weight.
        return krylov_step(wide, basis, projected, j, jnp.uint32(j))[:2]

    basis, projected = jax.lax.fori_loop(0, steps, step, krylov_start(basis, steps, dtype))
    largest = jnp.max(jnp.abs(projected))
    largest = jnp.where(largest > 0, largest, 1)
    values, vectors = jnp.linalg.eigh(projected / largest)
    weights = vectors @ (function(values * largest) * vectors[0])
    found = scaled(length, combination(weights, row(basis, slice(steps))))
    return cast_like(found, vector)
