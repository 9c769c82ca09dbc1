"""How a method takes its batches, what it does with their gradients, and what it is over them."""

from __future__ import annotations

from functools import singledispatch
from typing import Any, NamedTuple

import sympy

from igr.backward_error.methods import (
    EpochMethod,
    LinearMethod,
    SampledMethod,
    gradient_descent,
    reshuffled_sgd,
)
from igr.backward_error.protocols import Method


class Drawing(NamedTuple):
    """How a method takes its batches.

    Attributes:
      unit: the steps of a unit, which is what is drawn anew: m for an epoch.
      random: whether anything is drawn.
      size: of the batch that a step draws from all examples; None where batches are given.
      own: whether the method's equation knows its batches.
      order: of the batches, where it is fixed.
      reach: how many h a lasting gradient moves params by in a step: 1/(1 - beta) with momentum.
    """

    unit: int
    random: bool
    size: int | None
    own: bool
    order: tuple[int, ...] | None = None
    reach: float = 1.0


@singledispatch
def drawing_of(method: Any, count: int) -> Drawing:
    """How a method takes its batches, `count` of them: each once an epoch, in random order."""
    return Drawing(count, True, None, False)


@drawing_of.register
def _(method: EpochMethod, count: int) -> Drawing:
    m = int(method.num_batches)
    if m != count:
        raise ValueError(
            f"batches must have a leading axis of {m}, the batches of {method.name}; it has {count}"
        )
    reach = 1.0 if method.remembers is None else float(method.remembers.taylor(1)[0])
    return Drawing(count, method.order is None, None, True, method.order, reach)


@drawing_of.register
def _(method: SampledMethod, count: int) -> Drawing:
    return Drawing(1, True, int(method.batch_size), True)


@singledispatch
def over_batches(method: Any, count: int) -> Method:
    """The method whose equation knows that there are `count` batches, where there is one."""
    return method


@over_batches.register
def _(method: LinearMethod, count: int) -> Method:
    """SGD in epochs, with the memory of the method; decay and ways uphill have no such equation."""
    if method.rho != 0 or method.weight_decay != 0 or method.parameters:
        return method
    if method.transfer == 1:
        return reshuffled_sgd(count)
    name = f"{method.name} over {count} batches in random order"
    return EpochMethod(name, sympy.Integer(count), None, method)


@singledispatch
def with_gradients(method: Any) -> Method:
    """What a method does with the gradients it is given, wherever they come from."""
    return method


@with_gradients.register
def _(method: EpochMethod) -> Method:
    return gradient_descent() if method.remembers is None else method.remembers


@with_gradients.register
def _(method: SampledMethod) -> Method:
    return gradient_descent()
