"""Updates with a leading example axis: their checks, and their reduction over examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from igr.pytrees import reject_complex
from igr.transforms.masks import reject_masked_nodes, static_mask


def over_examples(
    rule: str,
    reduce_leaf: Callable[[Array], Array],
    mask: PyTree | Callable[[PyTree], PyTree] | None,
    check_length: Callable[[int], Any] = lambda length: None,
) -> optax.GradientTransformationExtraArgs:
    """A transformation that reduces updates over their leading axis of examples.

    Leaves that the mask chooses are reduced by `reduce_leaf`, others by the mean; integer leaves
    become zeros.
    """

    def init_fn(params: PyTree) -> optax.EmptyState:
        reject_masked_nodes(rule, params)
        return optax.EmptyState()

    def update_fn(
        updates: PyTree, state: optax.EmptyState, params: PyTree | None = None, **extra_args: Any
    ) -> tuple[PyTree, optax.EmptyState]:
        del extra_args
        return _aggregated(rule, reduce_leaf, updates, params, mask, check_length), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _aggregated(
    rule: str,
    reduce_leaf: Callable[[Array], Array],
    updates: PyTree,
    params: PyTree | None,
    mask: PyTree | Callable[[PyTree], PyTree] | None,
    check_length: Callable[[int], Any],
) -> PyTree:
    """The updates reduced over their leading axis of examples, a pytree like params.

    Raises:
        ValueError: If there is no array, the leading axes disagree, the shapes are not those of
            params behind a leading axis, or `MaskedNode`s stand in the trees.
    """
    reject_masked_nodes(rule, updates, params)
    reject_complex(updates, "updates")
    leaves, structure = jax.tree.flatten(updates)
    check_length(_num_examples(rule, leaves))
    averaged = structure.unflatten(
        [jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype) for leaf in leaves]
    )
    if params is not None:
        _require_shapes(rule, updates, params)
    chosen = static_mask(mask, averaged)
    return structure.unflatten(
        [_reduced(reduce_leaf if c else _mean, u) for u, c in zip(leaves, chosen, strict=True)]
    )


def _reduced(reduce_leaf: Callable[[Array], Array], leaf: Any) -> Any:
    if not jnp.issubdtype(leaf.dtype, jnp.floating):  # integers, and the float0 of jax.grad
        return np.zeros(leaf.shape[1:], leaf.dtype)
    return reduce_leaf(jnp.asarray(leaf)).astype(leaf.dtype)


def _mean(leaf: Array) -> Array:
    return jnp.mean(leaf, axis=0)


def _num_examples(rule: str, leaves: list[Any]) -> int:
    if not leaves:
        raise ValueError(f"{rule} needs updates with at least one array; the tree is empty.")
    hint = (
        f"{rule} takes gradients example by example, with a leading example axis, as "
        "igr.per_example.per_example_gradients returns them; were these already averaged?"
    )
    for leaf in leaves:
        if not isinstance(leaf, jax.Array | np.ndarray) or leaf.ndim == 0:
            raise ValueError(f"{hint} An update without axes was given: {leaf!r}.")
    lengths = sorted({leaf.shape[0] for leaf in leaves})
    if len(lengths) > 1 or lengths[0] == 0:
        raise ValueError(f"{hint} The leading axes of the updates have lengths {lengths}.")
    return lengths[0]


def _require_shapes(rule: str, updates: PyTree, params: PyTree) -> None:
    leaves, structure = jax.tree.flatten(updates, is_leaf=lambda leaf: leaf is None)
    try:
        beside = structure.flatten_up_to(params)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{rule} needs updates and params of one structure; they differ: {error}"
        ) from error
    for update, param in zip(leaves, beside, strict=True):
        if update is not None and update.shape[1:] != jnp.shape(param):
            already = " They look already averaged." if update.shape == jnp.shape(param) else ""
            raise ValueError(
                f"{rule}: updates must have the shapes of params behind a leading example axis; "
                f"got {update.shape} for a parameter of shape {jnp.shape(param)}.{already}."
            )
