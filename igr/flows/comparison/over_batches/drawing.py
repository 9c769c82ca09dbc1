"""How a method draws its batches, and which method describes it over them."""

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
    """How a method draws its batches.

    Attributes:
      unit: the number of steps that one draw covers: m for an epoch of m batches.
      random: whether anything is drawn at random.
      size: the number of examples that a step draws; None where batches are given.
      own: whether the method's own equation is one over batches.
      order: the order of the batches if it is fixed, otherwise None.
      reach: the step of params under a constant gradient, over h: 1/(1 - beta) with momentum.
    """

    unit: int
    random: bool
    size: int | None
    own: bool
    order: tuple[int, ...] | None = None
    reach: float = 1.0


@singledispatch
def drawing_of(method: Any, count: int) -> Drawing:
    """How a method draws its `count` batches; by default each once an epoch in random order."""
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
    """A method whose equation is one over `count` batches if there is one, otherwise the method."""
    return method


@over_batches.register
def _(method: LinearMethod, count: int) -> Method:
    """SGD in epochs with the method's memory; with decay or SAM's ascent the method itself."""
    if method.rho != 0 or method.weight_decay != 0 or method.parameters:
        return method
    if method.transfer == 1:
        return reshuffled_sgd(count)
    name = f"{method.name} over {count} batches in random order"
    return EpochMethod(name, sympy.Integer(count), None, method)


@singledispatch
def with_gradients(method: Any) -> Method:
    """The method that describes what is done with a gradient, from whichever batch it comes."""
    return method


@with_gradients.register
def _(method: EpochMethod) -> Method:
    return gradient_descent() if method.remembers is None else method.remembers


@with_gradients.register
def _(method: SampledMethod) -> Method:
    return gradient_descent()
