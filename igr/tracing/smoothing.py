"""Replays an optimizer with its jumps and kinks smoothed in the way they were read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from igr.tracing.program import Application, Atom, Instead, Program, Variable


def smoothed(program: Program, at: frozenset[Variable], smooth: Any) -> Mapping[Variable, Instead]:
    """The smooth functions that replace the applications read as smoothed.

    Args:
      program: the update.
      at: the first outputs of the applications to replace.
      smooth: x/sqrt(x^2 + smooth) replaces the sign of x.

    Returns:
      first output -> function, the argument `instead` of `Program.replay`.
    """
    made_by = {step.outputs[0]: step for step in program.applications if step.outputs}
    smooth = float(smooth)

    def sign(x: Any) -> Any:
        return x / jnp.sqrt(x**2 + smooth)

    def absolute(x: Any) -> Any:
        return jnp.sqrt(x**2 + smooth)

    def larger(a: Any, b: Any) -> Any:
        return (a + b + absolute(a - b)) / 2

    def smaller(a: Any, b: Any) -> Any:
        return (a + b - absolute(a - b)) / 2

    plain: dict[str, Callable[..., Any]] = {
        "sign": sign,
        "abs": absolute,
        "max": larger,
        "min": smaller,
        "clamp": lambda low, x, high: smaller(larger(x, low), high),
    }

    def apply(step: Application, value: Callable[[Atom], Any]) -> Any:
        if step.primitive.name in plain:
            return plain[step.primitive.name](*map(value, step.inputs))
        which, otherwise, then = step.inputs
        assert isinstance(which, Variable)
        comparison = made_by[which]
        a, b = map(value, comparison.inputs)
        margin = a - b if comparison.primitive.name in ("gt", "ge") else b - a
        share = (1 + sign(margin)) / 2
        return value(otherwise) + (value(then) - value(otherwise)) * share

    return {variable: apply for variable in at}
