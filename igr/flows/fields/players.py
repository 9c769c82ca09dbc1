"""The field of two players on the pair of their params."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, reduce
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from igr.backward_error.trees.batches import BatchTree, order
from igr.backward_error.trees.games import GameEquation
from igr.checks import check_value_fn
from igr.flows import kinds
from igr.flows.fields.differentials import add, directional, scale
from igr.pytrees import combine, floating, like_params

ValueFn = Callable[[PyTree], Array]
Vector = tuple[PyTree, PyTree]


@kinds.field_of.register
def _(
    eq: GameEquation,
    value_fn: Sequence[ValueFn],
    h: float | Array,
    *,
    batches: PyTree | None = None,
    rates_at: float | None = None,
) -> Callable[[Any, Vector, Any], Vector]:
    kinds.check_numbers(eq)
    kinds.check_no_batches(eq, batches)
    if not isinstance(value_fn, Sequence) or len(value_fn) != 2:
        raise TypeError(
            f"value_fn is a pair of losses, one for each player of {eq.name}; got {value_fn!r}"
        )
    for loss in value_fn:
        check_value_fn(loss)
    return game_field(eq, (value_fn[0], value_fn[1]), h)


def game_field(
    eq: GameEquation, value_fns: tuple[ValueFn, ValueFn], h: float | Array
) -> Callable[[Any, Vector, Any], Vector]:
    """Compiles the equation of two players.

    Args:
      eq: from `igr.modified_equation`, its coefficients numbers.
      value_fns: A and B, the loss of each player: `(theta, phi) -> scalar`, of the pair as one
        argument.
      h: the step.

    Returns:
      `f(t, (theta, phi), args)`.
    """
    wanted = {t: float(c) * h ** (order(t) - 1) for t, c in eq.coefficients.items()}

    def field(t: Any, params: Vector, args: Any = None) -> Vector:
        del t, args
        dynamic, static = floating(params)

        def descent(player: int) -> Callable[[Vector], Vector]:
            """f of a player: minus its loss's gradient in its own params, zero in the other's."""

            def at(z: Vector) -> Vector:
                own = jax.grad(
                    lambda x: value_fns[player](
                        combine(tuple(x if i == player else z[i] for i in (0, 1)), static)
                    )
                )(z[player])
                zero = jax.tree.map(jnp.zeros_like, z[1 - player])
                moved = scale(-1.0, own)
                return (moved, zero) if player == 0 else (zero, moved)

            return at

        fields = descent(0), descent(1)

        @cache
        def differential(tree: BatchTree) -> Vector:
            derivative = fields[tree[0]]
            for child in tree[1:]:
                derivative = directional(derivative, differential(child))
            return derivative(dynamic)

        total = jax.tree.map(jnp.zeros_like, dynamic)
        alone: tuple[list[Any], list[Any]] = ([], [])  # a derivative is linear in its direction
        for t, c in wanted.items():
            if len(t) == 2:
                alone[t[0]].append(scale(c, differential(t[1])))
            else:
                total = add(total, scale(c, differential(t)))
        for f, directions in zip(fields, alone, strict=True):
            if directions:
                total = add(total, directional(f, reduce(add, directions))(dynamic))
        return like_params(total, params)

    return field
