"""What the steps of a method add to the loss to first order: a multiple of |grad E|^2."""

from __future__ import annotations

from igr.backward_error import ModifiedEquation, modified_equation
from igr.backward_error.protocols import Method
from igr.backward_error.trees.one_loss import PLAIN_GRADIENT


def implicit_penalty(method: Method) -> float:
    """a/w of the modified loss w E + h a |grad E|^2: the weight of h |grad E|^2 beside one E.

    A factor of the whole loss changes how fast it is followed, and not what is followed. Gradient
    descent has 1/4 (Barrett and Dherin, "Implicit gradient regularization", 2021, equation 2).

    Args:
        method: From `igr.methods`, with numbers for its parameters.

    Raises:
        ValueError: If the method has open symbols, or follows anything but the loss E alone by
            fixed coefficients: adaptive rules, weight decay, several losses.
        NotAGradientError: If the method's h^1 term is not a gradient.

    >>> from igr.backward_error import methods
    >>> implicit_penalty(methods.heavy_ball(0.5))
    1.5
    """
    equation = modified_equation(method, order=1)
    if not isinstance(equation, ModifiedEquation) or equation.colouring != PLAIN_GRADIENT:
        raise ValueError(
            "method must follow the gradient of one loss by fixed coefficients, as gradient "
            "descent, momentum and Runge-Kutta methods without weight decay do (adaptive ones have "
            "a loss in the metric of a preconditioner, which igr.modified_value_fn gives); got "
            f"{method.name}"
        )
    if equation.parameters:
        names = ", ".join(map(str, equation.parameters))
        raise ValueError(f"{method.name} has open symbols ({names}): give them numbers")
    loss = equation.modified_loss().coefficients
    return float(loss.get(((),), 0) / loss[()])
