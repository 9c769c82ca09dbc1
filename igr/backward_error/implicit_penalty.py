"""The weight of |grad E|^2 that a method's finite step adds to the loss at first order in h."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import sympy

from igr.backward_error import ModifiedEquation, modified_equation
from igr.backward_error.algebra.taylor import STEP
from igr.backward_error.protocols import Method
from igr.backward_error.terms.algebra import G
from igr.backward_error.terms.equation import ElementwiseEquation
from igr.backward_error.trees.one_loss import PLAIN_GRADIENT


def implicit_penalty(method: Method) -> float:
    """The coefficient a of h |grad E|^2 in a method's modified loss E + h a |grad E|^2.

    Where the modified loss is w E + h b |grad E|^2, as 1/(1 - beta) times E for heavy ball, a is
    b/w: the factor w changes how fast the flow moves, not where it goes. Gradient descent has 1/4
    (Barrett and Dherin, "Implicit gradient regularization", 2021, equation 2).

    An adaptive method descends on E + h a sum_i P_i g_i^2 in the metric of its preconditioner P,
    whose squared length of the gradient stands in the place of |grad E|^2. Adam with its second
    moment kept has a = (1 + b1)/(4 (1 - b1)) and P = 1/(sqrt(nu) + eps).

    Args:
        method: From `igr.methods`, with numbers for its parameters.

    Returns:
        The coefficient a, a Python float.

    Raises:
        ValueError: If the method has open symbols, or follows anything but the loss E alone:
            weight decay, several losses; or if it adds something else.
        NotAGradientError: If the method's h^1 term is not a gradient, in the metric of its
            preconditioner where it is adaptive.

    >>> from igr.backward_error import methods
    >>> implicit_penalty(methods.heavy_ball(0.5))
    1.5
    >>> implicit_penalty(methods.adam(0.5))
    0.75
    """
    return _weight(modified_equation(method, order=1))


@singledispatch
def _weight(equation: Any) -> float:
    """The coefficient a of `implicit_penalty`, from a modified equation of order 1."""
    raise _other(equation)


@_weight.register
def _(equation: ModifiedEquation) -> float:
    if equation.colouring != PLAIN_GRADIENT:
        raise _other(equation)
    _check_numbers(equation)
    loss = equation.modified_loss().coefficients
    return float(loss.get(((),), 0) / loss[()])


@_weight.register
def _(equation: ElementwiseEquation) -> float:
    _check_numbers(equation)
    modified = equation.modified_loss()
    length = modified.parts.preconditioner[0] * G**2
    weight = sympy.simplify((modified.penalty + modified.of_length) / (STEP * length))
    if not (weight.is_number and modified.decay == 0):
        raise ValueError(
            f"{equation.name} adds more to its loss than a multiple of the squared length of the "
            f"gradient in its metric, as weight decay does: it follows {modified}. Its value is "
            "that of igr.modified_value_fn"
        )
    return float(weight)


def _other(equation: Any) -> ValueError:
    return ValueError(
        "method must follow the gradient of one loss by fixed coefficients, as gradient "
        "descent, momentum and Runge-Kutta methods without weight decay do, or in the metric "
        f"of a preconditioner, as Adam does; got {equation.name}"
    )


def _check_numbers(equation: Any) -> None:
    if equation.parameters:
        names = ", ".join(map(str, equation.parameters))
        raise ValueError(f"{equation.name} has open symbols ({names}): give them numbers")
