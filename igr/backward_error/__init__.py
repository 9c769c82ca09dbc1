"""Backward error analysis of optimizers: symbolic, exact, and without JAX."""

from igr.backward_error import methods, trees
from igr.backward_error.derive import modified_equation
from igr.backward_error.elementwise_equation import ElementwiseEquation
from igr.backward_error.epoch import EpochEquation
from igr.backward_error.epoch_loss import EpochLoss
from igr.backward_error.equation import ModifiedEquation
from igr.backward_error.games import GameEquation
from igr.backward_error.loss import ModifiedLoss, NotAGradientError
from igr.backward_error.sampled import StochasticEquation

__all__ = [
    "ElementwiseEquation",
    "EpochEquation",
    "EpochLoss",
    "GameEquation",
    "ModifiedEquation",
    "ModifiedLoss",
    "NotAGradientError",
    "StochasticEquation",
    "methods",
    "modified_equation",
    "trees",
]
