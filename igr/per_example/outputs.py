"""The outputs of a network on a set of examples: their number, and random signs for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from igr.one_example import of_one_example


def output_dimension(apply_fn: Callable[[PyTree, Any], Any], params: PyTree, x: PyTree) -> int:
    """The number q of outputs for one example.

    Raises:
        ValueError: If they are neither a vector of real floating numbers, one at least, nor a
            scalar.
    """
    example = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), x)
    output = jax.eval_shape(lambda example: of_one_example(apply_fn, params, example), example)
    if not isinstance(output, jax.ShapeDtypeStruct):
        raise ValueError(
            "apply_fn must return one array, the outputs (q,) of one example; it returned "
            f"{jax.tree.structure(output)}."
        )
    if output.ndim > 1 or not jnp.issubdtype(output.dtype, jnp.floating):
        raise ValueError(
            "apply_fn must return a vector (q,) or a scalar for one example, in real floating "
            f"numbers; it returned shape {output.shape}, {output.dtype}. Is x a batch there? The "
            "batch axis is mapped over here."
        )
    if output.size == 0:
        raise ValueError("apply_fn must return at least one number for one example; it returned 0.")
    return output.size


def random_signs_of_outputs(
    key: PRNGKeyArray | None, probes: int, values: Float[Array, "n q"]
) -> Float[Array, "probes n q"]:
    """Independent random signs 1 or -1 for every output of every example, (probes, n, q)."""
    key = jax.random.key(0) if key is None else key
    return jax.random.rademacher(key, (probes, *values.shape), values.dtype)


def square_sum(tree: PyTree) -> Float[Array, ""]:
    """The sum of the squares of all entries of a pytree, a scalar in float32 or wider."""

    def of_leaf(leaf: Array) -> Array:
        return jnp.sum(leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)) ** 2)

    return jax.tree.reduce(jnp.add, jax.tree.map(of_leaf, tree))
