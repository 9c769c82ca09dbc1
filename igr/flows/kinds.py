"""How each kind of equation becomes a field, and each kind of method a discrete step.

The functions here are `functools.singledispatch`es on the class of an equation, a method or its
response, so that all other code never asks which kind it holds. A kind registers its versions
where they are defined:

    @kinds.field_of.register
    def _(eq: MyEquation, value_fn, h, *, batches=None, rates_at=None): ...

and what a kind does not register raises an error that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import singledispatch
from typing import Any

import optax
from jaxtyping import Array, PyTree

from igr import checks
from igr.backward_error import protocols
from igr.checks import Number

ValueFn = Callable[..., Array]
Field = Callable[[Any, PyTree, Any], PyTree]


@singledispatch
def field_of(
    eq: Any,
    value_fn: Any,
    h: Number | Array,
    *,
    batches: PyTree | None = None,
    rates_at: Number | None = None,
) -> Field:
    """The vector field of an equation, `f(t, state, args)`: what `igr.vector_field` compiles.

    Args:
      eq: an equation without open symbols.
      value_fn: the loss, or losses, in the form that the kind takes; the kind checks it.
      h: the step, which has been checked.
      batches: the batches, for an equation of SGD in epochs.
      rates_at: the step that the rates of kept states are meant for; h if not given.

    Raises:
      TypeError: for an equation of a kind that is not registered, or no equation.
    """
    raise _unregistered(
        eq,
        "no vector field",
        "field_of",
        "eq must be a modified equation, from igr.modified_equation",
    )


@singledispatch
def value_fn_of(
    eq: Any, value_fn: Any, h: Number | Array, *, batches: PyTree | None = None
) -> Callable[[PyTree], Array]:
    """The modified loss as a function of the state: what `igr.modified_value_fn` compiles.

    Args:
      eq: an equation without open symbols.
      value_fn: the loss, or losses, in the form that the kind takes.
      h: the step, which has been checked.
      batches: the batches, for an equation of SGD in epochs.

    Raises:
      TypeError: for an equation of a kind that is not registered, or no equation.
    """
    raise _unregistered(
        eq,
        "no modified loss to compile",
        "value_fn_of",
        "eq must be a modified equation, from igr.modified_equation",
    )


@singledispatch
def step_of(
    method: Any, h: Number | Array, *, rates_at: Number | None = None
) -> optax.GradientTransformation:
    """The discrete step of a method as an optax transformation.

    Args:
      method: without open symbols.
      h: the step.
      rates_at: the step that the rates of kept states are meant for; h if not given.

    Raises:
      TypeError: for a method of a kind that is not registered, or no method.
    """
    raise _unregistered(
        method,
        "no discrete step",
        "step_of",
        "method must be one of igr.methods, such as gradient_descent()",
    )


@singledispatch
def shares_of(
    method: Any, h: Number | Array, rates_at: Number | None = None
) -> dict[str, float | Array]:
    """The share of its new value that each kept state takes in, in a step h: a dictionary by name.

    Args:
      method: without open symbols.
      h: the step.
      rates_at: the step that the rates of kept states are meant for; h if not given.

    Returns:
      A dictionary, empty where nothing is kept.
    """
    return {}


@singledispatch
def never_negative_of(method: Any) -> frozenset[str] | None:
    """The names of kept states that are never negative, as averages of squares, or None.

    Args:
      method: without open symbols.

    Returns:
      The names, or None where a description of this kind does not tell.
    """
    return None if method.kept else frozenset()


@singledispatch
def state_at_rest(
    method: Any,
    gradient: PyTree,
    params: PyTree,
    h: Number | Array,
    *,
    rates_at: Number | None,
    count: Array,
    value_fn: Callable[[PyTree], Array] | None = None,
) -> dict[str, PyTree]:
    """The kept states after `count` steps at fixed params and gradient, by name.

    Args:
      method: without open symbols.
      gradient: the gradient at params.
      params: the fixed params.
      h: the step.
      rates_at: the step that the rates of kept states are meant for; h if None.
      count: the number of steps.
      value_fn: the loss, for a rule that reads it.

    Returns:
      A dictionary, empty where nothing is kept.
    """
    return {}


@singledispatch
def preconditioner_of(response: Any, h: Number | Array) -> Callable[..., PyTree] | None:
    """The preconditioner C of a linear response as a function, or None for 1.

    It is called as `(gradient, params, kept, t) -> C`, elementwise and like params.

    Args:
      response: from `method.response()`.
      h: the step.
    """
    return None


def _unregistered(thing: Any, lacks: str, registry: str, wanted: str) -> TypeError:
    described = protocols.Equation if registry in _OF_EQUATIONS else protocols.Method
    if isinstance(thing, described):
        return TypeError(
            f"{thing.name} has {lacks}: register its kind with igr.flows.kinds.{registry}"
        )
    return TypeError(f"{wanted}; got {thing!r}.")


_OF_EQUATIONS = ("field_of", "value_fn_of")


def check_numbers(eq: Any) -> None:
    """Raises `ValueError` if the equation has open symbols."""
    if eq.parameters:
        names = ", ".join(map(str, eq.parameters))
        raise ValueError(
            f"the equation of {eq.name} has open symbols ({names}); give them numbers: "
            f"eq.subs({{{eq.parameters[0]!r}: 0.9}}), or derive the equation for a number"
        )


def check_value_fn(eq: Any, value_fn: Any) -> None:
    """Raises `TypeError` unless `value_fn` is one function."""
    if isinstance(value_fn, Sequence):
        raise TypeError(f"value_fn must be one function: {eq.name} has one loss; got {value_fn!r}.")
    checks.check_value_fn(value_fn)


def check_no_batches(eq: Any, batches: Any) -> None:
    """Raises `ValueError` if batches are given for an equation that takes none."""
    if batches is not None:
        raise ValueError(
            "batches is for SGD in epochs, such as igr.methods.reshuffled_sgd(num_batches); the "
            f"equation is that of {eq.name}"
        )


def check_one_loss(eq: Any, value_fn: Any, batches: Any) -> None:
    """Checks an equation of one loss: no open symbols, a loss that is a function, no batches.

    Raises:
      TypeError: unless `value_fn` is a function.
      ValueError: if symbols are open, or batches are given.
    """
    check_numbers(eq)
    check_no_batches(eq, batches)
    check_value_fn(eq, value_fn)


def check_runnable(method: Any) -> None:
    """Raises unless a method has a discrete step on one loss and no open symbols.

    Raises:
      TypeError: for a method without such a step, or no method.
      ValueError: if it has open symbols, or no finite memory.
    """
    parameters = getattr(method, "parameters", ())
    if step_of.dispatch(type(method)) is not step_of.dispatch(object) and parameters:
        raise ValueError(
            f"{method.name} has open symbols {', '.join(map(str, parameters))}: "
            "to run it give them numbers"
        )
    step_of(method, 1.0)
