"""The leaves of params that a rule differentiates and changes, as lists, and back to trees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from igr.missing_parts import of_whole
from igr.pytrees import is_trained, reject_complex
from igr.statistics_beside import reject_statistics
from igr.transforms.losses import require_scalar_loss
from igr.transforms.masks import has_masked_nodes, reject_masked_nodes, static_labels, static_mask


@dataclass(frozen=True)
class Partitioned:
    """Parameters as a list of floating arrays; all other leaves are held constant.

    Attributes:
        params: The floating leaves of params, in tree order.
        updates: The leaves of updates beside them (without updates: the same as `params`).
    """

    params: list[Array]
    updates: list[Array]
    _positions: list[int]
    _all_params: list[Any]
    _all_updates: list[Any]
    _structure: Any

    def loss(self, value_fn: Callable[..., Any]) -> Callable[[list[Array]], Array]:
        """`value_fn` as a function of the list of trained leaves."""

        def loss_of_leaves(leaves: list[Array]) -> Array:
            return require_scalar_loss(of_whole(value_fn, self.params_tree(leaves)))

        return loss_of_leaves

    def params_tree(self, leaves: list[Array]) -> PyTree:
        """Params with `leaves` in place of the trained leaves."""
        return self._structure.unflatten(self._replaced(self._all_params, leaves))

    def updates_tree(self, leaves: list[Array]) -> PyTree:
        """Updates with `leaves` in place of the trained leaves, and the others unchanged.

        `leaves` are cast back to the dtypes of the updates.
        """
        kept = [leaf.astype(u.dtype) for leaf, u in zip(leaves, self.updates, strict=True)]
        return self._structure.unflatten(self._replaced(self._all_updates, kept))

    def gradient_tree(self, leaves: list[Array]) -> PyTree:
        """A gradient in the structure of params, from that of the trained leaves.

        Zeros for the arrays that do not train, None for what is no array: both leave such leaves as
        they are when the update is applied.
        """
        constants = [_zeros_or_none(leaf) for leaf in self._all_params]
        return self._structure.unflatten(self._replaced(constants, leaves))

    def labels(self, labels: PyTree | Callable[[PyTree], PyTree], name: str) -> list[Any]:
        """The label of every trained leaf, from a tree of static labels.

        The tree is a prefix of params, or a function of params that returns one.
        """
        params = self._structure.unflatten(self._all_params)
        full = self._structure.flatten_up_to(static_labels(labels, params, name))
        return [full[i] for i in self._positions]

    def masked(self, mask: PyTree | Callable[[PyTree], PyTree] | None) -> list[bool]:
        """Whether `mask` (None: everywhere) chooses each trained leaf."""
        params = self._structure.unflatten(self._all_params)
        full = self._structure.flatten_up_to(
            jax.tree.unflatten(jax.tree.structure(params), static_mask(mask, params))
        )
        return [full[i] for i in self._positions]

    def _replaced(self, everything: list[Any], leaves: list[Array]) -> list[Any]:
        everything = list(everything)
        for i, leaf in zip(self._positions, leaves, strict=True):
            everything[i] = leaf
        return everything


def partitioned(
    rule: str,
    params: PyTree | None,
    updates: PyTree | None = None,
    masked_allowed: bool = False,
) -> Partitioned:
    """The floating arrays of `params` for which `updates`, if given, has a floating array too.

    Args:
        rule: The name of the rule, for error messages.
        params: The parameters: floating leaves train; integers, keys, functions are held constant.
        updates: The updates, whose `None`s (as equinox leaves them) mark what is not trained.
        masked_allowed: Whether `optax.MaskedNode`s may stand for leaves, or all of them.

    Raises:
        ValueError: If params are missing, hold no floating array or a complex one, differ from
            updates in structure or shapes, or hold `optax.MaskedNode`s that are not allowed.
    """
    if params is None:
        raise ValueError(f"{rule} needs the parameters: call update(updates, state, params, ...).")
    if not masked_allowed:
        reject_masked_nodes(rule, params, updates)
    if updates is None:
        updates = params
    all_updates, structure = jax.tree.flatten(updates, is_leaf=lambda leaf: leaf is None)
    try:
        all_params = structure.flatten_up_to(params)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{rule} needs updates and params of one structure; they differ: {error}"
        ) from error
    reject_complex(params, "params")
    reject_statistics(params)
    reject_complex(updates, "updates")
    positions = [
        i
        for i, (u, p) in enumerate(zip(all_updates, all_params, strict=True))
        if is_trained(u) and is_trained(p)
    ]
    if not positions and not (masked_allowed and has_masked_nodes(params)):
        kinds = sorted({type(leaf).__name__ for leaf in jax.tree.leaves(params)})
        raise ValueError(
            f"{rule} must get params with at least one floating array; got leaves of "
            f"{kinds or 'no kind'}."
        )
    for i in positions:
        if jnp.shape(all_updates[i]) != jnp.shape(all_params[i]):
            raise ValueError(
                f"{rule} must get updates of the shapes of params; got {jnp.shape(all_updates[i])} "
                f"for a parameter of shape {jnp.shape(all_params[i])}. Per-example gradients have "
                "to be aggregated before."
            )
    return Partitioned(
        params=[jnp.asarray(all_params[i]) for i in positions],
        updates=[jnp.asarray(all_updates[i]) for i in positions],
        _positions=positions,
        _all_params=all_params,
        _all_updates=all_updates,
        _structure=structure,
    )


def _zeros_or_none(leaf: Any) -> Any:
    is_array = isinstance(leaf, jax.Array | np.ndarray | np.generic)
    if not is_array or jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
        return None
    return jnp.zeros_like(leaf)
