"""Optimizers as several studies use them: made from the settings of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import optax
from jaxtyping import Array


def sgd(settings: Mapping[str, Array]) -> optax.GradientTransformation:
    """Gradient descent with the rate "learning_rate" of the settings."""
    return optax.sgd(settings["learning_rate"])


def with_dropped_rate(
    direction: optax.GradientTransformation, *steps: int
) -> Callable[[Mapping[str, Array]], optax.GradientTransformation]:
    """What makes an optimizer whose rate, "learning_rate" at first, falls at some steps.

    Args:
        direction: The update for the rate 1, its sign not yet turned, as `optax.scale_by_adam()`.
        *steps: When the rate is divided by ten.
    """

    def make(settings: Mapping[str, Array]) -> optax.GradientTransformation:
        schedule = optax.piecewise_constant_schedule(1.0, dict.fromkeys(steps, 0.1))
        return optax.chain(
            direction,
            optax.scale_by_schedule(schedule),
            optax.scale_by_learning_rate(settings["learning_rate"]),
        )

    return make
