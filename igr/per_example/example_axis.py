"""The leading axis of a batch: what it must be, and what of params is differentiated along it."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree


def num_examples(batch: PyTree) -> int:
    """The length of the leading axis that every leaf of `batch` shares.

    Raises:
        ValueError: If the batch has no arrays or no examples, or its leaves disagree.
    """
    lengths = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
        name = "batch" + jax.tree_util.keystr(path)
        if not isinstance(leaf, jax.Array | np.ndarray) or leaf.ndim == 0:
            raise ValueError(
                "every leaf of batch must be an array with a leading example axis; "
                f"{name} is {leaf!r}."
            )
        lengths[name] = leaf.shape[0]
    if not lengths:
        raise ValueError("batch must hold at least one array; it is empty.")
    if len(set(lengths.values())) > 1:
        raise ValueError(
            "the leaves of batch must agree in their leading example axis; got "
            + ", ".join(f"{length} in {name}" for name, length in lengths.items())
            + "."
        )
    length = next(iter(lengths.values()))
    if length == 0:
        raise ValueError("batch must hold at least one example; it holds 0.")
    return length


def differentiable(
    example_loss_fn: Callable[[PyTree, PyTree], Any], params: PyTree
) -> tuple[PyTree, Callable[[PyTree, PyTree], Array]]:
    """The floating leaves of `params` (None elsewhere), and the checked loss as a function of them.

    Raises:
        ValueError: If no leaf is a floating array; when called, if the loss is not a scalar.
    """
    floating, constant = eqx.partition(params, is_floating)
    if not jax.tree.leaves(floating):
        kinds = sorted({type(leaf).__name__ for leaf in jax.tree.leaves(params)})
        raise ValueError(
            f"params must hold at least one floating array; got leaves of {kinds or 'no kind'}."
        )

    def loss_fn(floating: PyTree, example: PyTree) -> Array:
        value = example_loss_fn(eqx.combine(floating, constant), example)
        if not is_floating(value) or jnp.ndim(value) != 0:
            kind = f"shape {value.shape}" if isinstance(value, jax.Array) else repr(value)
            raise ValueError(
                "example_loss_fn must return one real floating number for one example; it "
                f"returned {kind}."
            )
        return value

    return floating, loss_fn


def with_zeros_for_constants(gradients: PyTree, params: PyTree, length: int) -> PyTree:
    """Gradients with zeros beside the integer arrays of params, so that the trees match."""

    def fill(leaf: Any, gradient: Any) -> Any:
        is_array = isinstance(leaf, jax.Array | np.ndarray)
        if gradient is not None or not is_array or jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
            return gradient
        return jnp.zeros((length, *leaf.shape), leaf.dtype)

    return jax.tree.map(fill, params, gradients, is_leaf=lambda leaf: leaf is None)


def is_floating(leaf: Any) -> bool:
    """Whether a leaf is an array of real floating numbers."""
    return isinstance(leaf, jax.Array | np.ndarray) and bool(
        jnp.issubdtype(leaf.dtype, jnp.floating)
    )
