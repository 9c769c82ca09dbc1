"""Backward error analysis of optimizers: symbolic, exact, and without JAX."""

from igr.backward_error import methods, trees
from igr.backward_error.derive import modified_equation
from igr.backward_error.stochastic import StochasticEquation
from igr.backward_error.terms.equation import ElementwiseEquation
from igr.backward_error.trees.equation import ModifiedEquation
from igr.backward_error.trees.loss import ModifiedLoss, NotAGradientError

__all__ = [
    "ElementwiseEquation",
    "ModifiedEquation",
    "ModifiedLoss",
    "NotAGradientError",
    "StochasticEquation",
    "methods",
    "modified_equation",
    "trees",
]


def __dir__() -> list[str]:
    return sorted(__all__)
