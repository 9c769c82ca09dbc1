"""The loss of one example as a function of the trained leaves, and the tree of its gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from igr.one_example import of_one_example
from igr.pytrees import combine, is_trained, partition
from igr.statistics_beside import reject_statistics


def differentiable(
    example_loss_fn: Callable[[PyTree, PyTree], Any], params: PyTree
) -> tuple[PyTree, Callable[[PyTree, PyTree], Array]]:
    """The trained leaves of `params` (None elsewhere), and the checked loss as a function of them.

    Raises:
        ValueError: If no leaf is trained or one is complex; when called, if the loss is no scalar.
    """
    reject_statistics(params)
    trained, constant = partition(params)

    def loss_fn(trained: PyTree, example: PyTree) -> Array:
        value = of_one_example(example_loss_fn, combine(trained, constant), example)
        if not is_trained(value) or jnp.ndim(value) != 0:
            kind = f"shape {value.shape}" if isinstance(value, jax.Array) else repr(value)
            raise ValueError(
                "example_loss_fn must return one real floating number for one example; it "
                f"returned {kind}."
            )
        return jnp.asarray(value)

    return trained, loss_fn


def with_zeros_for_constants(gradients: PyTree, params: PyTree, length: int) -> PyTree:
    """The gradients, with zeros for the integer arrays of params."""

    def fill(leaf: Any, gradient: Any) -> Any:
        is_array = isinstance(leaf, jax.Array | np.ndarray)
        if gradient is not None or not is_array or jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
            return gradient
        return jnp.zeros((length, *leaf.shape), leaf.dtype)

    return jax.tree.map(fill, params, gradients, is_leaf=lambda leaf: leaf is None)
