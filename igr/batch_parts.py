"""Loops over parts of a batch without a second copy of it.

A batch that divides evenly into parts is reshaped. Any other is read part by part with dynamic
slices, because cutting off the rest first would make the compiler copy it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from igr.meshes import in_parts
from igr.meshes.explicit_axes import explicit_mesh
from igr.pytrees import num_examples


def added_over_parts(
    add: Callable[[PyTree, PyTree], PyTree], total: PyTree, batch: PyTree, chunk: int
) -> PyTree:
    """The total after `total = add(total, part)` for consecutive parts of a batch.

    Args:
        add: `(total, part) -> total`.
        total: The initial total.
        batch: A pytree of arrays with a leading axis of n examples.
        chunk: The number of examples in a part, at most n; the last may be shorter.

    >>> add = lambda total, part: total + part.sum()
    >>> print(added_over_parts(add, jnp.array(0), jnp.arange(5), 2))
    10
    """
    n = num_examples(batch)
    batch = jax.tree.map(jnp.asarray, batch)
    whole, rest = divmod(n, chunk)
    if not rest or explicit_mesh(batch) is not None:
        parts, last = in_parts(batch, chunk)
        total, _ = jax.lax.scan(lambda t, part: (add(t, part), None), total, parts)
        return add(total, last) if rest else total

    def step(total: PyTree, i: Any) -> tuple[PyTree, None]:
        return add(total, _part(batch, i * chunk, chunk)), None

    total, _ = jax.lax.scan(step, total, jnp.arange(whole))
    return add(total, _part(batch, n - rest, rest))


def mapped_over_parts(fn: Callable[[PyTree], PyTree], batch: PyTree, chunk: int) -> PyTree:
    """The values of `fn` at every example, stacked, `chunk` examples at a time.

    Args:
        fn: A function from one example to a pytree of arrays.
        batch: A pytree of arrays with a leading axis of n examples.
        chunk: The number of examples to take at a time.

    >>> print(mapped_over_parts(lambda x: 2 * x, jnp.arange(5), 2))
    [0 2 4 6 8]
    """
    n = num_examples(batch)
    batch = jax.tree.map(jnp.asarray, batch)
    whole, rest = divmod(n, min(chunk, n) or 1)
    if not rest:
        return jax.lax.map(fn, batch, batch_size=chunk)
    first = jax.lax.map(lambda i: jax.vmap(fn)(_part(batch, i * chunk, chunk)), jnp.arange(whole))
    last = jax.vmap(fn)(_part(batch, n - rest, rest))
    return jax.tree.map(lambda x, y: jnp.concatenate([x.reshape(-1, *x.shape[2:]), y]), first, last)


def _part(batch: PyTree, start: Any, length: int) -> PyTree:
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, length), batch)
