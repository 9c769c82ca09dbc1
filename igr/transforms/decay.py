"""The shared part of the decays: a transformation of updates, and a form for gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from igr.missing_parts import of_whole
from igr.shown import short, table
from igr.transforms.losses import require_scalar_loss
from igr.transforms.masks import reject_masked_nodes
from igr.transforms.partitioned import Partitioned, partitioned

# What a decay takes off the parameters: a function of them, of the step (None where the caller of
# an oracle did not say) and of the extra arguments.
Decay = Callable[[Partitioned, Any, Mapping[str, Any]], list[Array]]


class DecayState(NamedTuple):
    """State of a decay: the number of steps taken."""

    count: Array  # int32 scalar

    __repr__ = short
    _repr_html_ = table


def decay_transformation(
    rule: str, decay: Decay, leaf_by_leaf: bool = False
) -> optax.GradientTransformationExtraArgs:
    """The transformation that subtracts `decay` from the updates, in the updates' dtypes.

    A decay that is `leaf_by_leaf` needs no loss, and some leaves may be `optax.MaskedNode`s.
    """

    def init_fn(params: PyTree) -> DecayState:
        if not leaf_by_leaf:
            reject_masked_nodes(rule, params)
        return DecayState(count=jnp.zeros([], jnp.int32))

    def update_fn(
        updates: PyTree, state: DecayState, params: PyTree | None = None, **extra_args: Any
    ) -> tuple[PyTree, DecayState]:
        leaves = partitioned(rule, params, updates, leaf_by_leaf)
        decays = decay(leaves, state.count, extra_args)
        decayed = [u - p for u, p in zip(leaves.updates, decays, strict=True)]
        return leaves.updates_tree(decayed), DecayState(optax.safe_increment(state.count))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def decay_value_and_grad(
    rule: str,
    value_fn: Callable[..., Any],
    decay: Decay,
    has_aux: bool,
    also_called: Mapping[str, Callable[..., Any] | None] | None = None,
) -> Callable[..., tuple[Any, PyTree]]:
    """A function that returns the plain loss, and its gradient plus `decay`.

    Args:
        rule: The name for error messages.
        value_fn: `(params, *args, **kwargs) -> scalar`, or with `has_aux` a pair.
        decay: As in `decay_transformation`.
        has_aux: As in `jax.value_and_grad`.
        also_called: Further functions `(x, *args, **kwargs)` to hand to `decay`, by name.
    """

    def value_and_grad(
        params: PyTree, *args: Any, count: Any = None, **kwargs: Any
    ) -> tuple[Any, PyTree]:
        leaves = partitioned(rule, params)

        def closed(fn: Callable[..., Any]) -> Callable[[Any], Any]:
            return lambda x: of_whole(lambda x: fn(x, *args, **kwargs), x)

        def value_and_aux(values: list[Array]) -> tuple[Array, Any]:
            output = closed(value_fn)(leaves.params_tree(values))
            value, aux = output if has_aux else (output, None)
            return require_scalar_loss(value), aux

        extra: dict[str, Any] = {
            name: None if fn is None else closed(fn) for name, fn in (also_called or {}).items()
        }
        extra["value_fn"] = lambda p: closed(value_fn)(p)[0] if has_aux else closed(value_fn)(p)
        decays = decay(leaves, count, extra)
        (value, aux), gradient = jax.value_and_grad(value_and_aux, has_aux=True)(leaves.params)
        total = [(g + p).astype(g.dtype) for g, p in zip(gradient, decays, strict=True)]
        return ((value, aux) if has_aux else value), leaves.gradient_tree(total)

    return value_and_grad
