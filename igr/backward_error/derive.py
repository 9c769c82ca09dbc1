"""Derives the modified equation of an optimizer from its description."""

from __future__ import annotations

from typing import Any, overload

from igr.backward_error import protocols
from igr.backward_error.algebra.orders import check_order
from igr.backward_error.methods import EpochMethod, GameMethod, Method, SampledMethod
from igr.backward_error.methods.sharpness_aware import SharpnessAware
from igr.backward_error.stochastic import StochasticEquation
from igr.backward_error.terms.elementwise import ElementwiseMethod
from igr.backward_error.terms.equation import ElementwiseEquation
from igr.backward_error.trees.equation import ModifiedEquation
from igr.checks import Count


@overload
def modified_equation(
    method: Method | EpochMethod | GameMethod, order: Count = 1
) -> ModifiedEquation: ...
@overload
def modified_equation(
    method: ElementwiseMethod | SharpnessAware, order: Count = 1
) -> ElementwiseEquation: ...
@overload
def modified_equation(method: SampledMethod, order: Count = 1) -> StochasticEquation: ...
@overload
def modified_equation(method: protocols.Method, order: Count = 1) -> protocols.Equation: ...
def modified_equation(method: Any, order: Count = 1) -> Any:
    """Derives, exactly, the modified equation that an optimizer follows.

    Args:
      method: from `igr.methods`, or anything that satisfies `igr.backward_error.protocols.Method`.
      order: the highest power of h that is kept, at least 0. Order 0 is the flow the method
        tends to as h goes to 0.

    Returns:
      The equation, its coefficients exact: rational, or in the symbols of the method.

    Raises:
      ValueError: if `order` is negative.
      TypeError: if `order` is not an integer or `method` is not a method.

    >>> from igr.backward_error import methods
    >>> eq = modified_equation(methods.gradient_descent(), order=2)
    >>> print(eq)
    θ' = -g - h/2 H g - h² (1/3 H² g + 1/12 ∇³E[g, g]) + O(h³)
    >>> eq.is_gradient(1), eq.is_gradient(2)
    (True, False)
    >>> print(eq.modified_loss(1))
    E + h/4 |g|² + O(h²)
    """
    order = check_order(order)
    return protocols.require_method(method).equation(order)
