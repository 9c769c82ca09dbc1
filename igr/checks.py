"""What is checked before long work starts, with errors that say what is allowed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jax.core import Tracer


def check_step(name: str, h: Any) -> None:
    """Raises `ValueError` unless a step size is positive and finite (tracers pass)."""
    if isinstance(h, Tracer):
        return
    try:
        value = float(h)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} is a positive number, got {h!r}") from error
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be positive and finite, got {value}")


def check_count(name: str, value: Any, least: int) -> int:
    """Raises unless a count is an integer of at least so much."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} is an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)


def check_value_fn(value_fn: Any) -> None:
    """Raises `TypeError` unless the loss is callable."""
    if not callable(value_fn):
        raise TypeError(f"value_fn is a function of params that returns a scalar, got {value_fn!r}")
