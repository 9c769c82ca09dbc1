"""The leaves on which a rule acts: masks and labels, fixed when the step is traced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from jaxtyping import PyTree


def static_mask(mask: PyTree | Callable[[PyTree], PyTree] | None, params: PyTree) -> list[bool]:
    """Whether `mask` (None: everywhere) chooses each leaf of params, a list of bools.

    Raises:
        ValueError: If the mask does not fit params or does not hold Python bools.
    """
    if mask is None:
        return [True] * len(jax.tree.leaves(params))
    hint = (
        "Under optax.inject_hyperparams a callable mask is taken for a schedule unless it is "
        "declared: inject_hyperparams(..., static_args=('mask',))."
    )
    whole = jax.tree_util.treedef_is_leaf(jax.tree.structure(params))
    if isinstance(mask, bool | np.bool_) and not whole:
        raise ValueError(
            f"mask={mask} is a single bool for the whole tree; leave mask out to choose all "
            f"leaves. {hint}"
        )
    chosen = jax.tree.leaves(static_labels(mask, params, "mask"))
    for leaf in chosen:
        if not isinstance(leaf, bool | np.bool_):
            raise ValueError(
                f"mask must hold Python bools, fixed when the step is traced; it holds {leaf!r}. "
                f"{hint}"
            )
    return [bool(leaf) for leaf in chosen]


def static_labels(labels: PyTree | Callable[[PyTree], PyTree], params: PyTree, name: str) -> PyTree:
    """A label for every leaf, in the structure of params.

    `labels` is such a tree, a prefix of one, or a function of params that returns one.

    Raises:
        ValueError: If it does not fit params.
    """
    tree = labels(params) if callable(labels) else labels
    try:
        return jax.tree.map(lambda label, below: jax.tree.map(lambda _: label, below), tree, params)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{name} must be a pytree with the structure of params or a prefix of it, or a "
            f"function of params that returns one; it does not fit params: {error}"
        ) from error


def has_masked_nodes(tree: PyTree) -> bool:
    """Whether a tree holds `optax.MaskedNode`s, as `optax.masked` leaves in place of leaves."""

    def is_masked(leaf: Any) -> bool:
        return isinstance(leaf, optax.MaskedNode)

    return any(is_masked(leaf) for leaf in jax.tree.leaves(tree, is_leaf=is_masked))


def reject_masked_nodes(rule: str, *trees: PyTree) -> None:
    """Raises `ValueError` if one of the trees holds `optax.MaskedNode`s."""
    if any(map(has_masked_nodes, trees)):
        raise ValueError(
            f"{rule} needs the whole tree, but optax.masked or optax.partition left MaskedNodes "
            f"in it; take {rule} out of that wrapper and chain it before or after (rules that can "
            "leave parameters out have a mask= of their own)."
        )
