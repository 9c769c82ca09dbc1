"""Runs SGD in epochs: an optax optimizer over batches in given orders, as one scan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import Array, Int, PyTree

from igr.checks import check_value_fn
from igr.compiled import Traced, compiled, traced
from igr.missing_parts import of_whole
from igr.progress.expected import expected_seconds
from igr.progress.late_bar import (
    Ticking,
    between_or_within,
    scan,
    ticking,
    under_transformation,
)
from igr.pytrees import combine, num_examples, partition


def run_epochs(
    optimizer: optax.GradientTransformation,
    value_fn: Callable[[PyTree, PyTree], Array],
    params: PyTree,
    batches: PyTree,
    orders: Int[Array | np.ndarray, "epochs m"],
    progress: bool | None = None,
) -> PyTree:
    """The iterates of an optimizer after each epoch, with the batches in the given orders.

    The memory is that of the result, params once an epoch, and of a single step.

    `jax.vmap` over `orders` runs many in parallel. Reshuffled SGD takes a fresh
    `jax.random.permutation` in each row. In the mean of several runs most of the spread cancels if
    each run is paired with one that takes each epoch backwards, `orders[:, ::-1]`, because the
    leading effect of an order changes its sign.

    Args:
      optimizer: an optax optimizer, learning rate included.
      value_fn: `(params, batch) -> scalar`, the loss of one batch.
      params: the start, any pytree with floating leaves.
      batches: a pytree of arrays with a leading axis of m batches.
      orders: which batch each step of each epoch takes, 0 to m - 1.
      progress: whether to show a bar with the time left; if not given, only after some seconds.
        There is none under a transformation such as jit or vmap.

    Returns:
      Params with a leading axis of epochs + 1, the start first.

    Raises:
      ValueError: if the leaves of batches disagree, or `orders` is not an integer array of m
        columns with entries from 0 to m - 1.
      TypeError: if `optimizer` is not an optax transformation.

    >>> loss = lambda x, a: (x - a) ** 2 / 2
    >>> orders = jnp.array([[0, 1], [1, 0]])
    >>> print(run_epochs(optax.sgd(0.5), loss, jnp.array(1.0), jnp.array([0.0, 2.0]), orders))
    [1.     1.25   0.8125]
    """
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(f"optimizer must be an optax.GradientTransformation; got {optimizer!r}.")
    check_value_fn(value_fn)
    m = num_examples(batches)
    orders = jnp.asarray(orders)
    if orders.ndim != 2 or orders.shape[1] != m or not jnp.issubdtype(orders.dtype, jnp.integer):
        raise ValueError(
            f"orders must be an integer array of shape (epochs, {m}), a column for each batch; got "
            f"shape {orders.shape} and dtype {orders.dtype}."
        )
    if not isinstance(orders, Tracer):
        known = np.asarray(orders)  # in JAX a comparison is traced inside jit, whatever is compared
        outside = np.unique(known[(known < 0) | (known >= m)])
        if outside.size:  # which indexing would clip
            raise ValueError(f"orders must lie in 0, ..., {m - 1}; got {outside[:5].tolist()}")
    dynamic, static = partition(params)
    optimizer = optax.with_extra_args_support(optimizer)
    initial = traced(optimizer.init, dynamic)
    state = eqx.filter_eval_shape(initial, dynamic)

    def step(params: PyTree, state: Any, batch: PyTree) -> tuple[PyTree, Any]:
        def loss(p: PyTree) -> Array:
            return of_whole(value_fn, combine(p, static), batch)

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(
            gradient, state, params, value=value, grad=gradient, value_fn=loss
        )
        return optax.apply_updates(params, updates), state

    one = jax.eval_shape(lambda: jax.tree.map(lambda x: jnp.asarray(x)[0], batches))
    one_step = traced(step, dynamic, state, one)
    bar = None
    if orders.size and not under_transformation(one_step, initial, dynamic, batches, orders):
        seconds = expected_seconds(one_step.program.jaxpr)
        bar = ticking("epochs", progress, orders.size, seconds)
    visited = _scan(one_step, initial, dynamic, batches, orders, bar)
    first = jax.tree.map(lambda x: x[None], dynamic)
    return combine(jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, visited), static)


@compiled
def _scan(
    one_step: Traced, initial: Traced, params: PyTree, batches: PyTree, orders: Array,
    bar: Ticking | None,
) -> PyTree:  # fmt: skip
    def step(carry: tuple[PyTree, Any], k: Array) -> tuple[tuple[PyTree, Any], None]:
        batch = jax.tree.map(lambda x: jnp.asarray(x)[k], batches)
        return one_step(*carry, batch), None

    epochs, m = orders.shape
    # The bar moves between epochs, or where these take long between steps.
    many, few = between_or_within(bar, m)

    def epoch(
        carry: tuple[PyTree, Any], at: tuple[Array, Any]
    ) -> tuple[tuple[PyTree, Any], PyTree]:
        order, first = at
        carry, _ = scan(few, step, carry, order, m, first=first)
        return carry, carry[0]

    begun = None if few is None else m * jnp.arange(epochs, dtype=jnp.int32)
    carry, visited = scan(many, epoch, (params, initial(params)), (orders, begun), epochs, size=m)
    if bar is not None:
        bar.finish(jax.tree.leaves(carry[0])[0].ravel()[:1].sum())
    return visited
