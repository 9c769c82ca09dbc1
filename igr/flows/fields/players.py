"""The field of two players on the pair of their params."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from igr.backward_error import ModifiedEquation, trees
from igr.backward_error.trees.players import Players
from igr.checks import Number, check_value_fn
from igr.flows import kinds
from igr.flows.fields.differentials import Differentials
from igr.flows.fields.trees import field_coefficients, field_over
from igr.flows.kinds import Field, ValueFn
from igr.pytrees import combine, like_params, partition

Pair = tuple[PyTree, PyTree]


@field_over.register
def _(
    players: Players,
    eq: ModifiedEquation,
    value_fn: Sequence[ValueFn],
    h: Number | Array,
    batches: PyTree | None,
) -> Field:
    coefficients = field_coefficients(eq).get(0, {})
    kinds.check_no_batches(eq, batches)
    if not isinstance(value_fn, Sequence) or len(value_fn) != 2:
        raise TypeError(
            f"value_fn is a pair of losses, one for each player of {eq.name}; got {value_fn!r}"
        )
    for loss in value_fn:
        check_value_fn(loss)
    wanted = {t: float(c) * h ** (trees.size(t) - 1) for t, c in coefficients.items()}

    def field(t: Any, params: Pair, args: Any = None) -> Pair:
        del t, args
        dynamic, static = partition(params)
        slopes = {p: _slope(value_fn[p], p, static) for p in players.palette}
        return like_params(Differentials(slopes, dynamic).combination(wanted), params)

    return field


def _slope(value_fn: ValueFn, player: int, static: Pair) -> Callable[[Pair], Pair]:
    """The gradient of a player's loss in its own params, and zero in the other's."""

    def at(z: Pair) -> Pair:
        def loss(own: PyTree) -> Array:
            return value_fn(combine(tuple(own if i == player else z[i] for i in (0, 1)), static))

        zero = jax.tree.map(jnp.zeros_like, z[1 - player])
        own = jax.grad(loss)(z[player])
        return (own, zero) if player == 0 else (zero, own)

    return at
