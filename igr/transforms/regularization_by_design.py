"""The explicit penalty that replaces, or removes, the implicit one of a step size.

A method whose h^1 term is a gradient follows the loss w E + h a |grad E|^2: for gradient descent
w = 1 and a = 1/4 (Barrett and Dherin 2021, Theorem 3.1). Run on E + mu |grad E|^2 instead (their
equation 8, `igr.transforms.egr`) it follows w E + (w mu + h a) |grad E|^2, up to terms of
h mu and h^2. So mu can stand in for what another step would add, or take away what this one adds.
"""

from __future__ import annotations

from igr.backward_error import ModifiedEquation, modified_equation
from igr.backward_error.methods import Method
from igr.backward_error.trees.one_loss import PLAIN_GRADIENT
from igr.checks import check_step


def match_implicit(method: Method, learning_rate: float, target_learning_rate: float) -> float:
    """The mu with which EGR at one step size regularizes like the plain method at another.

    The small step with this mu and the large step without follow the same modified loss to first
    order, at equal time: n steps of `target_learning_rate` against n target / learning_rate.

    Args:
      method: from `igr.methods`, as run by `igr.transforms.egr` with the same momentum.
      learning_rate: the step h that will be used.
      target_learning_rate: the step whose implicit regularization is wanted.

    Returns:
      mu = (a/w) (target_learning_rate - learning_rate); (target - h)/4 for gradient descent.
      Negative where the target is the smaller of the two.

    Raises:
      ValueError: if a step is not positive and finite, the method has open symbols, or it follows
        anything but the loss E alone by fixed coefficients: adaptive rules, weight decay, several
        losses.
      NotAGradientError: if the method's h^1 term is not a gradient.

    >>> from igr.backward_error import methods
    >>> match_implicit(methods.gradient_descent(), 0.01, 0.09)
    0.02
    """
    check_step("learning_rate", learning_rate)
    check_step("target_learning_rate", target_learning_rate)
    return _per_step(method) * (target_learning_rate - learning_rate)


def cancel_implicit(method: Method, learning_rate: float) -> float:
    """The negative mu with which the discrete run follows the plain gradient flow one order closer.

    Args:
      method: from `igr.methods`, as run by `igr.transforms.egr` with the same momentum.
      learning_rate: the step h.

    Returns:
      mu = -(a/w) learning_rate; -h/4 for gradient descent. The error of a step against the
      gradient flow falls like h^3 with it, and like h^2 without.

    Raises:
      ValueError: as `match_implicit`.
      NotAGradientError: if the method's h^1 term is not a gradient.

    >>> from igr.backward_error import methods
    >>> cancel_implicit(methods.gradient_descent(), 0.1)
    -0.025
    """
    check_step("learning_rate", learning_rate)
    return -_per_step(method) * learning_rate


def _per_step(method: Method) -> float:
    """a/w: the coefficient of h |grad E|^2 for each E in the modified loss."""
    equation = modified_equation(method, order=1)
    if not isinstance(equation, ModifiedEquation) or equation.colouring != PLAIN_GRADIENT:
        raise ValueError(
            "method must follow the gradient of one loss by fixed coefficients, as gradient "
            f"descent, momentum and Runge-Kutta methods without weight decay do; got {method.name}"
        )
    if equation.parameters:
        names = ", ".join(map(str, equation.parameters))
        raise ValueError(f"{method.name} has open symbols ({names}): give them numbers")
    loss = equation.modified_loss().coefficients
    return float(loss.get(((),), 0) / loss[()])
