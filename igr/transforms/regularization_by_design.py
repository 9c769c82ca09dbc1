"""The explicit penalty with the effect of another step size, or without that of the present one.

A method whose h^1 term is a gradient follows the loss w E + h a |grad E|^2: for gradient descent
w = 1 and a = 1/4 (Barrett and Dherin 2021, Theorem 3.1). Run on E + mu |grad E|^2 instead (their
equation 8, `igr.transforms.egr`) it follows w E + (w mu + h a) |grad E|^2, up to terms of
h mu and h^2. So mu can stand in for what another step would add, or take away what this one adds.

An adaptive method follows E + h a sum_i P_i g_i^2 in the metric of its preconditioner P, and mu
weighs mu sum_i P_i g_i^2 there: with 2 mu H(P g) added to the gradient that its first moment
averages, P = 1/(sqrt(nu) + eps) for Adam.
"""

from __future__ import annotations

from igr.backward_error.implicit_penalty import implicit_penalty
from igr.backward_error.protocols import Method
from igr.checks import Number, check_step


def match_implicit(method: Method, learning_rate: Number, target_learning_rate: Number) -> Number:
    """The mu with which EGR at one step size regularizes like the plain method at another.

    The small step with this mu and the large step without follow the same modified loss to first
    order, at equal time: n steps of `target_learning_rate` against n target / learning_rate.

    Args:
      method: from `igr.methods`, as run by `igr.transforms.egr` with the same momentum.
      learning_rate: the step h that will be used.
      target_learning_rate: the step whose implicit regularization is wanted.

    Returns:
      mu = (a/w) (target_learning_rate - learning_rate); (target - h)/4 for gradient descent,
      (1 + b1)/(4 (1 - b1)) (target - h) in Adam's metric for Adam with its second moment kept.
      Negative where the target is the smaller of the two.

    Raises:
      ValueError: if a step is not positive and finite, the method has open symbols, or it follows
        anything but the loss E alone: weight decay, several losses.
      NotAGradientError: if the method's h^1 term is not a gradient, in the metric of its
        preconditioner where it is adaptive.

    >>> from igr.backward_error import methods
    >>> match_implicit(methods.gradient_descent(), 0.01, 0.09)
    0.02
    >>> match_implicit(methods.adam(0.5), 0.001, 0.003)
    0.0015
    """
    learning_rate = check_step("learning_rate", learning_rate)
    target_learning_rate = check_step("target_learning_rate", target_learning_rate)
    return implicit_penalty(method) * (target_learning_rate - learning_rate)


def cancel_implicit(method: Method, learning_rate: Number) -> Number:
    """The mu with which EGR follows the gradient flow of E one order closer than the plain method.

    Args:
      method: from `igr.methods`, as run by `igr.transforms.egr` with the same momentum.
      learning_rate: the step h.

    Returns:
      mu = -(a/w) learning_rate, which is negative; -h/4 for gradient descent. The error of a step
      against the gradient flow is of order h^3 with it, and of order h^2 without.

    Raises:
      ValueError: as `match_implicit`.
      NotAGradientError: if the method's h^1 term is not a gradient.

    >>> from igr.backward_error import methods
    >>> cancel_implicit(methods.gradient_descent(), 0.1)
    -0.025
    """
    learning_rate = check_step("learning_rate", learning_rate)
    return -implicit_penalty(method) * learning_rate
