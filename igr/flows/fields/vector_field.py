"""Compiles a modified equation to a vector field, or to its modified loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, cast

from jaxtyping import Array, PyTree

from igr.backward_error.protocols import Equation, Method
from igr.checks import Number, check_choice, check_step
from igr.flows import kinds
from igr.flows.kinds import Field, ValueFn
from igr.missing_parts import naming_what_is_missing

Derivatives = Literal["automatic", "differences"]


def vector_field(
    eq: Equation,
    value_fn: Callable[..., Array] | Sequence[ValueFn],
    h: Number | Array,
    batches: PyTree | None = None,
    *,
    derivatives: Derivatives = "automatic",
    method: Method | None = None,
) -> Field:
    """Compiles a modified equation to a vector field `f(t, params, args)` for diffrax.

    Memory: at order 1 at most six copies of params, argument and result included (these
    two are four copies where Adam's second moment is kept); at order 2 four for gradient descent
    and momentum, and eight for Adam. Activations come on top, some two or three times those of a
    gradient of the loss; `jax.checkpoint` in the loss trades them for time.

    Args:
      eq: from `igr.modified_equation`, its coefficients numbers.
      value_fn: the loss E, `params -> scalar`; for SGD in epochs that of one batch,
        `(params, batch) -> scalar`; for two players the pair of their losses, each
        `(theta, phi) -> scalar` of the pair of their params as one argument.
      h: the step the equation is for; a positive number, or an array under a transformation.
      batches: for SGD in epochs, the batches: a pytree of arrays with a leading axis of as many as
        the equation is for.
      derivatives: how derivatives of the gradient are taken. "automatic": by JAX, which misses the
        kinks of ReLU, max pooling and the like. "differences": as differences of gradients over
        the steps, which see kinks; at order 1, for methods without memory and for linear memories
        with positive weights.
      method: with "differences", the method of the equation if that has a memory; not needed for
        steps along the gradient alone.

    Returns:
      `f(t, params, args)`, autonomous, with the structure, shapes and dtypes of params: it goes
      straight into `diffrax.ODETerm`. Integer leaves get zeros, static leaves pass through. Where
      the method keeps states, as `igr.methods.adam()` does, the field is one of `(params, kept)`,
      with `kept` a dictionary by the states' names, and t is n h. For two players it is one of
      the pair `(theta, phi)`.

    Raises:
      ValueError: if `h` is not positive and finite, the equation has open symbols, or there are no
        differences for it.
      TypeError: if `eq` is not an equation or `value_fn` is not callable.

    On E = x^2/2 gradient descent multiplies x by 1 - h in every step, so the field is
    log(1 - h)/h x = -(1 + h/2 + h^2/3 + ...) x:

    >>> import jax.numpy as jnp
    >>> from igr.backward_error import methods, modified_equation
    >>> eq = modified_equation(methods.gradient_descent(), order=2)
    >>> field = vector_field(eq, lambda x: jnp.sum(x**2) / 2, h=0.1)
    >>> round(float(field(0.0, jnp.array([1.0]), None)[0]), 9)
    -1.053333333
    """
    h = check_step("h", h)
    value_fn = naming_what_is_missing(value_fn)
    check_choice("derivatives", derivatives, ("automatic", "differences"))
    if derivatives == "automatic":
        if method is not None:
            raise ValueError("method is for derivatives = 'differences'; got one with 'automatic'.")
        return kinds.field_of(eq, value_fn, h, batches=batches)
    from igr.flows.fields.by_differences.differences import (
        difference_field,  # which takes steps of methods
    )

    kinds.check_no_batches(eq, batches)
    return difference_field(eq, cast(ValueFn, value_fn), h, method)


def modified_value_fn(
    eq: Equation,
    value_fn: Callable[..., Array],
    h: Number | Array,
    batches: PyTree | None = None,
) -> ValueFn:
    """The modified loss as a function `params -> scalar`, where one exists.

    For gradient descent at order 1 it is E + h/4 |grad E|^2 (Barrett and Dherin 2021,
    Theorem 3.1).

    Args:
      eq: from `igr.modified_equation`; a gradient up to its order.
      value_fn: the loss E, `params -> scalar`; for SGD in epochs that of one batch,
        `(params, batch) -> scalar`.
      h: the step.
      batches: for SGD in epochs, the batches, as in `vector_field`.

    Returns:
      `params -> scalar`, differentiable; its negative gradient is `vector_field(eq, ...)`.

    Raises:
      NotAGradientError: if the method follows no modified loss at this order.
    """
    h = check_step("h", h)
    return kinds.value_fn_of(eq, naming_what_is_missing(value_fn), h, batches=batches)
