"""When training stops, and at which steps it is looked at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Steps:
    """Stop after so many steps.

    Raises:
        ValueError: If there is not at least one step.
    """

    steps: int

    def __post_init__(self):
        _require_count("steps", self.steps)

    def steps_at(self, settings: Mapping[str, float]) -> int:
        """The steps with these settings."""
        del settings
        return self.steps


@dataclass(frozen=True)
class PhysicalTime:
    """Stop when the steps times the learning rate reach `time`.

    Raises:
        ValueError: If `time` is not positive and finite.

    References:
        Barrett and Dherin, "Implicit Gradient Regularization" (2021), appendix A.5, Figure A.5.

    >>> PhysicalTime(10.0).steps_at({"learning_rate": 0.03})
    333
    """

    time: float

    def __post_init__(self):
        if not (math.isfinite(self.time) and self.time > 0):
            raise ValueError(f"time must be positive and finite; got {self.time!r}")

    def steps_at(self, settings: Mapping[str, float]) -> int:
        """The steps with these settings, at least 1."""
        return max(round(self.time / settings["learning_rate"]), 1)


@dataclass(frozen=True)
class MaxTestAccuracy:
    """Stop when the test accuracy has not risen for a while, and keep the model that had the most.

    Attributes:
        at_most: Steps after which it ends in any case.
        patience: Samples in a row without a new maximum; None to go on to the end.

    Raises:
        ValueError: If a number is not at least one.
    """

    at_most: int
    patience: int | None = None

    def __post_init__(self):
        _require_count("at_most", self.at_most)
        if self.patience is not None:
            _require_count("patience", self.patience)

    def steps_at(self, settings: Mapping[str, float]) -> int:
        """The most steps with these settings."""
        del settings
        return self.at_most


def sample_points(samples: int | Sequence[int], steps: int) -> np.ndarray:
    """The steps at which training is looked at.

    Args:
        samples: That many evenly spaced ones after the start, and the start; or the steps
            themselves, of which the last may be below `steps`.
        steps: All steps.

    Returns:
        Integers from 0 to `steps`, in order, the last step among them.

    Raises:
        ValueError: If they are not in order or not within the steps.

    >>> sample_points(4, 10)
    array([ 0,  2,  5,  8, 10])
    >>> sample_points([0, 1, 5], 10)
    array([ 0,  1,  5, 10])
    """
    if isinstance(samples, int | np.integer):
        _require_count("samples", samples)
        return np.round(np.linspace(0, steps, samples + 1)).astype(int)
    points = np.asarray(samples)
    in_order = points.ndim == 1 and points.dtype.kind in "iu" and (np.diff(points) > 0).all()
    if points.size == 0 or not in_order or points[0] < 0 or points[-1] > steps:
        raise ValueError(f"samples must be steps from 0 to {steps} in order; got {samples!r}")
    return points if points[-1] == steps else np.append(points, steps)


def _require_count(name: str, number: object) -> None:
    good = isinstance(number, int | np.integer) and not isinstance(number, bool)
    if not good or number < 1:  # pyright: ignore[reportOperatorIssue]
        raise ValueError(f"{name} must be an integer of at least 1; got {number!r}")
