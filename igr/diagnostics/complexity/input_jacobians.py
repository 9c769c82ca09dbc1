"""The Jacobians of a network with respect to its inputs, one matrix for each example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from igr.batch_parts import mapped_over_parts
from igr.checks import Count, check_count
from igr.curvature.vectors import widened
from igr.forward_mode import jacobian
from igr.meshes import on_any_mesh
from igr.one_example import of_one_example
from igr.per_example.outputs import output_dimension
from igr.pytrees import num_examples


def jacobian_shape(
    apply_fn: Callable[[PyTree, Any], Any], params: PyTree, x: PyTree
) -> tuple[int, int]:
    """The shape (q, d) of an example's Jacobian: the numbers of outputs and of inputs.

    Raises:
        ValueError: If the leaves of x disagree in their leading axis or are not floating, or
            apply_fn returns neither a vector nor a scalar.
    """
    n = num_examples(x)
    for leaf in jax.tree.leaves(x):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(f"x must be floating to be differentiated by; got {leaf.dtype}.")
    inputs = sum(leaf.size // n for leaf in jax.tree.leaves(x))
    return output_dimension(apply_fn, params, x), inputs


@on_any_mesh
def over_jacobians(
    fn: Callable[[Float[Array, "q d"]], PyTree],
    apply_fn: Callable[[PyTree, Any], Any],
    params: PyTree,
    x: PyTree,
    chunk: Count | None = None,
) -> PyTree:
    """The value of `fn` at the Jacobian of every example, stacked along a leading axis of n.

    Args:
        fn: From a Jacobian (q, d), in float32 or wider, to arrays.
        apply_fn: `(params, x) -> outputs (q,)`, or a scalar, for one x.
        params: Any pytree.
        x: The examples, floating, along the leading axis: an array or a pytree of arrays.
        chunk: The number of examples to take at a time; all by default.

    Raises:
        ValueError: As `jacobian_shape`; if `chunk` is less than 1.
        TypeError: If `chunk` is not an integer.
    """
    if chunk is not None:
        chunk = check_count("chunk", chunk, 1)
    q, d = jacobian_shape(apply_fn, params, x)

    def of_one(x: PyTree) -> Array:
        return jnp.ravel(of_one_example(apply_fn, params, x))

    differentiate = jacobian(of_one, forward=q > d)

    def mapped(x: PyTree) -> PyTree:
        leaves = jax.tree.leaves(widened(differentiate(x)))
        return fn(jnp.concatenate([leaf.reshape(q, -1) for leaf in leaves], axis=1))

    if chunk is None or chunk >= num_examples(x):
        return jax.vmap(mapped)(x)
    return mapped_over_parts(mapped, x, chunk)
