"""The leaves of params that a rule differentiates and changes, and the way back to the trees."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree


@dataclass(frozen=True)
class TrainedLeaves:
    """Parameters as a list of floating arrays; all else in the tree is held constant.

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
        """`value_fn` as a function of the trained leaves alone."""

        def loss_of_leaves(leaves: list[Array]) -> Array:
            return require_scalar_loss(value_fn(self.params_tree(leaves)))

        return loss_of_leaves

    def params_tree(self, leaves: list[Array]) -> PyTree:
        """Params with `leaves` in place of the trained leaves."""
        return self._structure.unflatten(self._replaced(self._all_params, leaves))

    def updates_tree(self, leaves: list[Array]) -> PyTree:
        """Updates with `leaves`, cast back to the dtypes of the updates, in place of the trained
        leaves and the others untouched."""
        kept = [leaf.astype(u.dtype) for leaf, u in zip(leaves, self.updates, strict=True)]
        return self._structure.unflatten(self._replaced(self._all_updates, kept))

    def gradient_tree(self, leaves: list[Array]) -> PyTree:
        """A gradient for params: zeros for the arrays that do not train, None for what is no
        array; both leave such leaves as they are when the update is applied."""
        constants = [_zeros_or_none(leaf) for leaf in self._all_params]
        return self._structure.unflatten(self._replaced(constants, leaves))

    def labels(self, labels: PyTree | Callable[[PyTree], PyTree], name: str) -> list[Any]:
        """What a tree of static labels (a prefix of params, or a function of params that returns
        one) says of every trained leaf."""
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


def trained_leaves(
    rule: str, params: PyTree | None, updates: PyTree | None = None
) -> TrainedLeaves:
    """The floating arrays of `params`, where `updates`, if given, has a floating array too.

    Args:
        rule: The name of the rule, for error messages.
        params: The parameters: floating leaves train; integers, keys, functions are held constant.
        updates: The updates, whose `None`s (as equinox leaves them) mark what is not trained.

    Raises:
        ValueError: If params are missing, hold no floating array or a complex one, differ from
            updates in structure or shapes, or where `optax.MaskedNode`s stand in either.
    """
    if params is None:
        raise ValueError(f"{rule} needs the parameters: call update(updates, state, params, ...).")
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
    positions = [
        i
        for i, (u, p) in enumerate(zip(all_updates, all_params, strict=True))
        if _is_floating(u) and _is_floating(p)
    ]
    if not positions:
        kinds = sorted({type(leaf).__name__ for leaf in jax.tree.leaves(params)})
        raise ValueError(
            f"{rule} needs params with at least one floating array; got leaves of "
            f"{kinds or 'no kind'}."
        )
    for i in positions:
        if jnp.shape(all_updates[i]) != jnp.shape(all_params[i]):
            raise ValueError(
                f"{rule} needs updates of the shapes of params; got {jnp.shape(all_updates[i])} "
                f"for a parameter of shape {jnp.shape(all_params[i])}. Per-example gradients have "
                "to be aggregated before."
            )
    return TrainedLeaves(
        params=[jnp.asarray(all_params[i]) for i in positions],
        updates=[jnp.asarray(all_updates[i]) for i in positions],
        _positions=positions,
        _all_params=all_params,
        _all_updates=all_updates,
        _structure=structure,
    )


def static_mask(mask: PyTree | Callable[[PyTree], PyTree] | None, params: PyTree) -> list[bool]:
    """Whether `mask` (None: everywhere) chooses each leaf of params.

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
    """A tree of labels, given as one, as a prefix of one or as a function of params, in the
    structure of params."""
    tree = labels(params) if callable(labels) else labels
    try:
        return jax.tree.map(lambda label, below: jax.tree.map(lambda _: label, below), tree, params)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{name} must be a pytree with the structure of params or a prefix of it, or a "
            f"function of params that returns one; it does not fit params: {error}"
        ) from error


def reject_masked_nodes(rule: str, *trees: PyTree) -> None:
    """Raise if `optax.masked` or `optax.partition` has taken leaves out of a tree."""

    def is_masked(leaf: Any) -> bool:
        return isinstance(leaf, optax.MaskedNode)

    if any(is_masked(leaf) for tree in trees for leaf in jax.tree.leaves(tree, is_leaf=is_masked)):
        raise ValueError(
            f"{rule} needs the whole tree, but optax.masked or optax.partition left MaskedNodes "
            f"in it; take {rule} out of that wrapper and chain it before or after (rules that can "
            "leave parameters out have a mask= of their own)."
        )


def require_value_fn(rule: str, value_fn: Any, oracle: str) -> Callable[[PyTree], Any]:
    """The extra argument `value_fn`, or an error that says how to pass it."""
    if value_fn is None:
        raise ValueError(
            f"{rule} needs the loss as an extra argument: update(updates, state, params, "
            "value_fn=...) with value_fn: params -> scalar. Where the training loop cannot pass "
            f"it on (flax's TrainState.apply_gradients), use {oracle} instead."
        )
    if not callable(value_fn):
        raise ValueError(
            f"{rule}: value_fn must be a function params -> scalar; got {type(value_fn).__name__}."
        )
    return value_fn


def require_scalar_loss(value: Any) -> Array:
    """The value of a loss, or an error that names `value_fn`."""
    if not _is_floating(value) or jnp.ndim(value) != 0:
        kind = f"shape {jnp.shape(value)}, {value.dtype}" if _is_array(value) else repr(value)
        raise ValueError(f"value_fn must return one real floating number; it returned {kind}.")
    return value


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)


def _is_floating(leaf: Any) -> bool:
    if not _is_array(leaf):
        return False
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        raise ValueError(f"complex arrays are not supported; got dtype {leaf.dtype}.")
    return bool(jnp.issubdtype(leaf.dtype, jnp.floating))


def _zeros_or_none(leaf: Any) -> Any:
    if not _is_array(leaf) or jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
        return None
    return jnp.zeros_like(leaf)
