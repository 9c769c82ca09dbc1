"""Conditions on the number of steps done: at which steps they change, and how they end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import sympy

from igr.tracing.symbols.values import STEPS

EARLY = 2  # steps: a condition that changes later is part of a schedule


def settled(condition: Any) -> tuple[bool, int] | None:
    """The final truth of a condition on the step and the step from which it holds, or None.

    None where the condition changes too often.
    """
    found = changes(condition)
    if found is None:
        return None
    since = found[-1] if found else 0
    return bool(_at_steps(condition)(np.array([float(since)]))[0]), since


def changes(condition: Any) -> list[int] | None:
    """The steps at which a condition on the step begins or ceases to hold; None if more than 8."""
    grid = np.unique(np.concatenate([np.arange(4096), np.geomspace(4096, 1e8, 4000).astype(int)]))
    function = _at_steps(condition)
    values = function(grid.astype(float))
    turns = np.flatnonzero(values[1:] != values[:-1])
    if turns.size > 8:
        return None
    found = []
    for i in turns:
        low, high = int(grid[i]), int(grid[i + 1])
        while high - low > 1:
            middle = (low + high) // 2
            same = function(np.array([float(middle)]))[0] == values[i]
            low, high = (middle, high) if same else (low, middle)
        found.append(high)
    return found


def _at_steps(condition: Any) -> Callable[[np.ndarray], np.ndarray]:
    """The condition as a function from an array of step numbers to a boolean array."""
    function = sympy.lambdify(STEPS, condition, "numpy")

    def at(steps: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.broadcast_to(np.asarray(function(steps), bool), steps.shape)

    return at
