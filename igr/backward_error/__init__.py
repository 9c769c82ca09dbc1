"""Backward error analysis of optimizers: symbolic, exact, and without JAX."""

from igr.backward_error import methods, trees
from igr.backward_error.derive import modified_equation
from igr.backward_error.terms.equation import ElementwiseEquation
from igr.backward_error.trees.epoch import EpochEquation
from igr.backward_error.trees.epoch_loss import EpochLoss
from igr.backward_error.trees.equation import ModifiedEquation
from igr.backward_error.trees.games import GameEquation
from igr.backward_error.trees.loss import ModifiedLoss, NotAGradientError
from igr.backward_error.trees.sampled import StochasticEquation

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
