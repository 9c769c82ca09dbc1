"""The mean gradient of every group of examples, one group after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from igr.checks import Count, check_count
from igr.meshes import on_any_mesh
from igr.per_example.example_axis import differentiable, with_zeros_for_constants
from igr.pytrees import num_examples


@on_any_mesh(like=1)
def grouped_gradients(
    example_loss_fn: Callable[[PyTree, PyTree], Any],
    params: PyTree,
    batch: PyTree,
    num_groups: Count,
) -> PyTree:
    """The mean gradients of `num_groups` groups of examples, stacked along a new leading axis.

    One group is differentiated after the other, as the gradient of its mean loss: no more than
    `num_groups` gradients exist at any time, and the cost is little more than one gradient of the
    whole batch. Group j holds the consecutive examples j n/k to (j+1) n/k - 1; shuffle the batch
    first if its order is not random.

    Args:
        example_loss_fn: `(params, example) -> scalar`.
        params: Any pytree with floating leaves.
        batch: A pytree of arrays with a leading axis of n examples.
        num_groups: The number k of groups, a divisor of n: all groups are of one size, and no
            example is ever dropped in silence.

    Returns:
        A pytree like params whose leaves have a leading axis of length k, in the dtypes of params;
        zeros for integer arrays, None for leaves that are no arrays.
        `igr.transforms.median_of_means(k)` takes their median.

    Raises:
        ValueError: If `num_groups` is no positive integer, is above the number of examples or does
            not divide it; else as `igr.per_example.per_example_gradients`.

    >>> import jax.numpy as jnp
    >>> loss = lambda w, x: w * x
    >>> print(grouped_gradients(loss, jnp.array(1.0), jnp.array([1.0, 3.0, 5.0, 9.0]), 2))
    [2. 7.]
    """
    size = group_size(num_examples(batch), num_groups)
    trained, loss_fn = differentiable(example_loss_fn, params)

    def mean_loss(trained: PyTree, group: PyTree) -> Any:
        return jnp.mean(jax.vmap(loss_fn, (None, 0))(trained, group))

    groups = jax.tree.map(lambda x: jnp.reshape(x, (num_groups, size, *x.shape[1:])), batch)
    gradients = jax.lax.map(lambda group: jax.grad(mean_loss)(trained, group), groups)
    return with_zeros_for_constants(gradients, params, num_groups)


def group_size(length: Count, num_groups: Any) -> int:
    """The number of examples in each of `num_groups` equal groups.

    Raises:
      ValueError: If it does not divide the number of examples.
    """
    num_groups = check_count("num_groups", num_groups, 1, length, ", the number of examples")
    rest = length % num_groups
    if rest:
        raise ValueError(
            f"num_groups must divide the number of examples; {num_groups} groups of "
            f"{length // num_groups} leave {rest} of {length} examples over. Drop them from the "
            "batch, or choose another number of groups."
        )
    return length // num_groups
