"""Backward error analysis of optimizers: symbolic, exact, and without JAX."""

from igr.backward_error import methods, trees
from igr.backward_error.derive import modified_equation
from igr.backward_error.equation import ModifiedEquation
from igr.backward_error.loss import ModifiedLoss, NotAGradientError

__all__ = [
    "ModifiedEquation",
    "ModifiedLoss",
    "NotAGradientError",
    "methods",
    "modified_equation",
    "trees",
]
