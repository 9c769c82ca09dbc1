"""Equations over trees as fields: their coefficients, for trees of any colouring.

No matrix is ever formed: a field is nested `jax.jvp` of gradients, planned in `differentials` so
that a field of any order over one loss has one Hessian product at its top. What the colours stand
for is registered with `field_over` and `value_fn_over`, by the class of the equation's colouring.
"""

from __future__ import annotations

from fractions import Fraction
from functools import singledispatch
from typing import Any

import sympy
from jaxtyping import Array, PyTree

from igr.backward_error import ModifiedEquation, StochasticEquation, trees
from igr.backward_error.trees.colouring import Colouring
from igr.backward_error.trees.powers import step_powers
from igr.checks import Number
from igr.flows import kinds
from igr.flows.kinds import Field, ValueFn


@kinds.field_of.register
def _(
    eq: ModifiedEquation,
    value_fn: Any,
    h: Number | Array,
    *,
    batches: PyTree | None = None,
    rates_at: Number | None = None,
) -> Field:
    return field_over(eq.colouring, eq, value_fn, h, batches)


@kinds.value_fn_of.register
def _(
    eq: ModifiedEquation, value_fn: Any, h: Number | Array, *, batches: PyTree | None = None
) -> ValueFn:
    return value_fn_over(eq.colouring, eq, value_fn, h, batches)


@kinds.field_of.register
def _(eq: StochasticEquation, value_fn: Any, h: Any, **options: Any) -> Field:
    raise _stochastic(eq)


@kinds.value_fn_of.register
def _(eq: StochasticEquation, value_fn: Any, h: Any, **options: Any) -> ValueFn:
    raise _stochastic(eq)


def _stochastic(eq: StochasticEquation) -> TypeError:
    return TypeError(
        f"the equation of {eq.name} is stochastic: igr.flows.stochastic_field compiles it, and "
        "igr.vector_field its drift, eq.drift"
    )


@singledispatch
def field_over(
    colouring: Colouring, eq: ModifiedEquation, value_fn: Any, h: Any, batches: PyTree | None
) -> Field:
    """The field of an equation over trees of a colouring; arguments as of `kinds.field_of`."""
    raise TypeError(f"no field is registered for trees over {colouring!r}, those of {eq.name}")


@singledispatch
def value_fn_over(
    colouring: Colouring, eq: ModifiedEquation, value_fn: Any, h: Any, batches: PyTree | None
) -> ValueFn:
    """The modified loss over trees of a colouring; arguments as of `kinds.value_fn_of`."""
    eq.modified_loss()
    raise TypeError(f"no loss is registered for trees over {colouring!r}, those of {eq.name}")


def field_coefficients(eq: ModifiedEquation) -> dict[int, dict[int, Fraction]]:
    """The coefficients of an equation over g: power of h -> tree as an integer -> fraction.

    The power comes on top of the h^(|t|-1) of every tree: 0 except with weight decay.
    """
    kinds.check_numbers(eq)
    found: dict[int, dict[int, Fraction]] = {}
    for t, b in eq.weights.items():
        for power, c in step_powers(eq.domain.to_sympy(b)):
            signed = (-1) ** trees.size(t) * _fraction(c) / trees.sigma(t)
            found.setdefault(power, {})[t] = signed
    return found


def central_edge(t: int) -> tuple[int, int] | None:
    """The two rooted halves of a tree, cut at the edge that makes the larger half smallest.

    The contraction over the free tree is the inner product of the halves' differentials.
    """
    halves = (
        (child, trees.index(_without(trees.children(root), child), trees.colour(root)))
        for root in trees.rooted_alike(t)
        for child in set(trees.children(root))
    )
    return min(halves, key=lambda pair: max(map(trees.size, pair)), default=None)


def _without(children: tuple[int, ...], child: int) -> tuple[int, ...]:
    at = children.index(child)
    return children[:at] + children[at + 1 :]


def _fraction(number: sympy.Expr) -> Fraction:
    """The number as a fraction: exact if rational, otherwise the nearest double (sqrt(1/2))."""
    if number.is_Rational:
        return Fraction(int(number.p), int(number.q))
    return Fraction(float(number))
