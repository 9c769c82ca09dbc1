"""Sums over a batch, some examples at a time."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from igr.pytrees import num_examples


def summed_over_chunks(
    sums: Callable[[PyTree], PyTree], batch: PyTree, chunk: int | None
) -> PyTree:
    """The sum of `sums(part)` over consecutive parts of the batch.

    Args:
        sums: From a part of the batch to arrays that add up, of one shape for parts of any length.
        batch: A pytree of arrays with a leading example axis.
        chunk: The length of a part (the last may be shorter), None for one part.

    Returns:
        What `sums` returns, for the whole batch.
    """
    n = num_examples(batch)
    batch = jax.tree.map(jnp.asarray, batch)
    if chunk is None or chunk >= n:
        return sums(batch)
    whole = n - n % chunk

    def add(sofar: PyTree, part: PyTree) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, sofar, sums(part)), None

    parts = jax.tree.map(lambda x: x[:whole].reshape(whole // chunk, chunk, *x.shape[1:]), batch)
    shapes = jax.eval_shape(sums, jax.tree.map(lambda x: x[0], parts))
    none = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    found, _ = jax.lax.scan(add, none, parts)
    if whole < n:
        found, _ = add(found, jax.tree.map(lambda x: x[whole:], batch))
    return found
