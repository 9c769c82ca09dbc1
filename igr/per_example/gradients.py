"""The gradient of every example of a batch, all held at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import PyTree

from igr.batch_parts import mapped_over_parts
from igr.checks import Count, check_count
from igr.convolutions import differentiable_by_example
from igr.meshes import on_any_mesh
from igr.per_example.example_axis import differentiable, with_zeros_for_constants
from igr.pytrees import num_examples


@on_any_mesh(like=1)
def per_example_gradients(
    example_loss_fn: Callable[[PyTree, PyTree], Any],
    params: PyTree,
    batch: PyTree,
    chunk: Count | None = None,
) -> PyTree:
    """The gradients of the loss of every example, stacked along a new leading axis of n.

    The result is as large as n times the parameters, and on a CPU writing it is most of the cost
    (at n = 128 about a hundred plain gradients). Where the means of a few groups suffice, as for a
    median of means, `grouped_gradients` costs little more than one gradient.

    Args:
        example_loss_fn: `(params, example) -> scalar`.
        params: Any pytree with floating leaves.
        batch: A pytree of arrays with a leading axis of n examples.
        chunk: The number of examples to take at a time, which bounds the memory of their
            activations; by default all n at once, for which the compiler may hold the gradients
            twice, in two layouts. It need not divide n.

    Returns:
        A pytree like params whose leaves have a leading axis of length n, in the dtypes of params;
        zeros for integer arrays, None for leaves that are no arrays. This is the form that
        `igr.transforms.winsorize` and `optax.contrib.differentially_private_aggregate` take.

    Raises:
        ValueError: If params have no floating leaf, the leaves of batch disagree in their leading
            axis, `chunk` is not a positive integer, or the loss is not a scalar.

    >>> import jax.numpy as jnp
    >>> loss = lambda w, example: (w @ example["x"] - example["y"]) ** 2 / 2
    >>> batch = {"x": jnp.array([[1.0, 0.0], [0.0, 2.0]]), "y": jnp.array([1.0, 0.0])}
    >>> print(per_example_gradients(loss, jnp.array([3.0, 1.0]), batch))
    [[2. 0.]
     [0. 4.]]
    """
    length = num_examples(batch)
    if chunk is not None:
        chunk = check_count("chunk", chunk, 1)
    trained, loss_fn = differentiable(example_loss_fn, params)
    gradient = jax.grad(differentiable_by_example(loss_fn, batch))
    if chunk is None or chunk >= length:
        gradients = jax.vmap(gradient, (None, 0))(trained, batch)
    else:
        gradients = mapped_over_parts(lambda e: gradient(trained, e), batch, chunk)
    return with_zeros_for_constants(gradients, params, length)
