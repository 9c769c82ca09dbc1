"""The field of two players on the pair of their params.

Where both move at once, the players are one: their joint field (r_0 grad A, r_1 grad B) is
descended by one method, and sums over trees of two colours are sums over trees of one, of which
there are far fewer. Whether an equation is of this kind is read off its coefficients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from igr.backward_error import ModifiedEquation, trees
from igr.backward_error.trees.players import Players
from igr.checks import Number, check_value_fn
from igr.flows import kinds
from igr.flows.fields.differentials import Differentials, scale
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
            f"value_fn must be a pair of losses, one for each player of {eq.name}; got "
            f"{value_fn!r}."
        )
    for loss in value_fn:
        check_value_fn(loss)
    wanted = {t: float(c) * h ** (trees.size(t) - 1) for t, c in coefficients.items()}
    joint = _over_the_joint_field(coefficients)

    def field(t: Any, params: Pair, args: Any = None) -> Pair:
        del t, args
        dynamic, static = partition(params)
        slopes = {p: _slope(value_fn[p], p, static) for p in players.palette}
        if joint is None:
            return like_params(Differentials(slopes, dynamic).combination(wanted), params)
        rates, of_shapes = joint

        def gradient(z: Pair) -> Pair:
            first, second = (scale(float(r) * h, slopes[p](z)[p]) for p, r in enumerate(rates))
            return first, second

        total = scale(1 / h, Differentials(gradient, dynamic).combination(of_shapes))
        return like_params(total, params)

    return field


def _over_the_joint_field(
    coefficients: Mapping[int, Fraction],
) -> tuple[tuple[Fraction, ...], dict[int, Fraction]] | None:
    """The players' rates, and the equation's coefficients by trees of one colour, or None.

    The trees are then over the joint field of both players. None where a coefficient is not that of
    the uncoloured tree times the rates of its vertices.
    """
    rates = tuple(-coefficients.get(trees.index((), p), Fraction(0)) for p in (0, 1))
    if not all(rates):
        return None
    found: dict[int, Fraction] = {}
    colourings: dict[int, Fraction] = {}
    for t, c in coefficients.items():
        shape = _without_colours(t)
        b = c * trees.sigma(t) / prod(rates[p] for p in trees.colours(t))
        if found.setdefault(shape, b) != b:
            return None
        colourings[shape] = colourings.get(shape, Fraction(0)) + Fraction(1, trees.sigma(t))
    # All 2^n colourings of n vertices must be there, each seen sigma(shape)/sigma(t) times.
    if any(n * trees.sigma(t) != 2 ** trees.size(t) for t, n in colourings.items()):
        return None
    return rates, {t: b / trees.sigma(t) for t, b in found.items()}


def _without_colours(t: int) -> int:
    return trees.index(tuple(sorted(map(_without_colours, trees.children(t)))))


def _slope(value_fn: ValueFn, player: int, static: Pair) -> Callable[[Pair], Pair]:
    """The gradient of a player's loss in its own params, zero in the other's, as a function."""

    def at(z: Pair) -> Pair:
        def loss(own: PyTree) -> Array:
            return value_fn(combine(tuple(own if i == player else z[i] for i in (0, 1)), static))

        zero = jax.tree.map(jnp.zeros_like, z[1 - player])
        own = jax.grad(loss)(z[player])
        return (own, zero) if player == 0 else (zero, own)

    return at
