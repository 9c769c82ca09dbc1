"""The field of order 1 from differences of gradients over the steps, in place of derivatives.

A derivative of a ReLU network misses the kinks, where the gradient jumps; a difference over a step
does not: with M the motion to h^0, H M is (g(theta + h M) - g(theta))/h.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import jax
import optax
from jaxtyping import Array, PyTree

from igr.backward_error.methods import gradient_descent, linear_memory
from igr.backward_error.protocols import Equation, Method
from igr.backward_error.trees.equation import ModifiedEquation
from igr.checks import Number
from igr.flows import kinds
from igr.flows.fields.by_differences.displaced import check_displaced, displaced_field
from igr.flows.fields.from_steps.interpolation import interpolating_field
from igr.flows.kinds import Field, ValueFn
from igr.pytrees import combine, partition


def difference_field(
    eq: Equation, value_fn: ValueFn, h: Number | Array, method: Method | None
) -> Field:
    """The field of an equation of order 1, computed without a derivative of the gradient.

    Args:
      eq: of order 1.
      value_fn: the loss E, `params -> scalar`.
      h: the step, which has been checked.
      method: the method of the equation; if not given, it is read off the equation.

    Raises:
      ValueError: if the order is another, the method is not the equation's, or no differences are
        known for it.
    """
    kinds.check_one_loss(eq, value_fn, None)
    if eq.order != 1:
        raise ValueError(
            "derivatives = 'differences' is for an equation of order 1: order 0 has none, and at "
            f"order 2 and more kinks make the series diverge; got order {eq.order}."
        )
    if method is None:
        method = method_of(eq)
        if method is None:
            raise ValueError(
                f"derivatives = 'differences' needs the method of {eq.name}, for the steps that it "
                "remembers: give method=, what the equation was derived from"
            )
    elif method.name != eq.name:
        raise ValueError(f"method must be that of the equation, {eq.name}; got {method.name}")
    kinds.check_runnable(method)
    remembers = method.memory()
    if method.kept or remembers.fading or remembers.steps:
        check_displaced(method)
        return displaced_field(method, value_fn, h)
    return interpolating_field(_step(method, value_fn, h), 1, h)


@singledispatch
def method_of(eq: Any) -> Method | None:
    """The memoryless method whose equation this is, or None if that cannot be read off it."""
    return None


@method_of.register
def _(eq: ModifiedEquation) -> Method | None:
    """The method of steps w h g, the only one with the equation -w g - (w^2/2) h H g."""
    if eq.colouring != _PLAIN or set(eq.coefficients) != {(), ((),)}:
        return None
    w, curved = (eq.coefficient(t) for t in ((), ((),)))
    return linear_memory(w) if curved == -(w**2) / 2 else None


_PLAIN = gradient_descent().equation(0).colouring


def _step(method: Method, value_fn: ValueFn, h: Number | Array) -> Any:
    """One step of a method without memory, as a function `params -> params`."""
    optimizer = optax.with_extra_args_support(kinds.step_of(method, h))

    def step(params: PyTree) -> PyTree:
        dynamic, static = partition(params)

        def loss(p: PyTree) -> Array:
            return value_fn(combine(p, static))

        value, g = jax.value_and_grad(loss)(dynamic)
        updates, _ = optimizer.update(
            g, optimizer.init(dynamic), dynamic, value=value, grad=g, value_fn=loss
        )
        return combine(optax.apply_updates(dynamic, updates), static)

    return step
