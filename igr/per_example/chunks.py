"""Sums over a batch, some examples at a time."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from igr.batch_parts import added_over_parts
from igr.pytrees import num_examples


def summed_over_chunks(
    sums: Callable[[PyTree], PyTree],
    batch: PyTree,
    chunk: int | None,
    plus: Callable[[PyTree, PyTree], PyTree] | None = None,
) -> PyTree:
    """The sum of `sums(part)` over consecutive parts of the batch.

    Args:
        sums: From a part of the batch to arrays that add up, of one shape for parts of any length.
        batch: A pytree of arrays with a leading example axis.
        chunk: The length of a part (the last may be shorter), None for one part.
        plus: A function that adds two results, by default array by array; the sum starts from
          zeros.

    Returns:
        The sum, with the structure that `sums` returns.
    """
    n = num_examples(batch)
    batch = jax.tree.map(jnp.asarray, batch)
    if chunk is None or chunk >= n:
        return sums(batch)

    def add(sofar: PyTree, part: PyTree) -> PyTree:
        found = sums(part)
        return jax.tree.map(jnp.add, sofar, found) if plus is None else plus(sofar, found)

    part = jax.tree.map(lambda x: jax.ShapeDtypeStruct((chunk, *x.shape[1:]), x.dtype), batch)
    none = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(sums, part))
    return added_over_parts(add, none, batch, chunk)
