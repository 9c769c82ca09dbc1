"""What a monitor warns of, and the limits of stability of the sharpnesses that it measures."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Array

from igr.backward_error.protocols import Method
from igr.flows import kinds


class Watch:
    """Warns, once of each, of what a row of a monitor says is wrong.

    Args:
        method: Whose limits of stability count.
        measures: By column.

    Attributes:
        limits: As `limits` gives them.
    """

    def __init__(self, method: Method, measures: Mapping[str, Any]):
        self.limits = limits(method)
        self._method, self._measures = method, measures
        self._warned: set[str] = set()

    def __call__(self, step: int, row: Mapping[str, Array]) -> None:
        """Reads a row; to be called by what a user's call of the monitor calls."""
        for column, measure in self._measures.items():
            helped = row.get(column + "/helped", np.nan)
            if "coherence" in (measure, column) and helped < 1:
                self._warn_once(
                    "coherence",
                    f"step {step}: coherence is under its orthogonal limit ({float(helped):.3g} of "
                    "it): the gradients of the examples cancel more than those of unrelated ones.",
                )
            kind = watched(measure, column)
            if kind is None:
                continue
            if not row.get(column + "/converged", True):
                self._warn_once(
                    "converged",
                    f"step {step}: the search for the sharpness did not converge; "
                    f"{float(row[column]):.3g} is a lower bound at best.",
                )
            reached = row.get("h_" + column, np.nan)
            limit = self.limits[kind]
            if reached > limit:
                what = kind.replace("_", " ")
                self._warn_once(
                    "limit of the " + what,
                    f"step {step}: the step size times the {what}, {float(reached):.3g}, has "
                    f"passed {limit:.3g}, the limit of stability of {self._method.name}.",
                )

    def _warn_once(self, what: str, message: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            warnings.warn(message, UserWarning, stacklevel=5)


SHARPNESSES = ("sharpness", "batch_sharpness", "preconditioned_sharpness")


def watched(measure: Any, column: str) -> str | None:
    """The kind of sharpness a column holds, by its measure's name or its own; None if none."""
    for kind in SHARPNESSES:
        if (isinstance(measure, str) and measure == kind) or column == kind:
            return kind
    return None


def limits(method: Method) -> dict[str, float]:
    """The limit of stability of h times each kind of sharpness, nan where the method has none.

    A method that preconditions has one on the preconditioned sharpness alone; the others one on
    the sharpness. That on batch sharpness is 2, of SGD without momentum.

    >>> from igr.backward_error import methods
    >>> round(limits(methods.adam())["preconditioned_sharpness"], 6)
    38.0
    """
    found: dict[str, float] = dict.fromkeys(SHARPNESSES, np.nan)
    response = method.response()
    if response is None:
        return found
    limit = float(response.stability_limit())
    if kinds.preconditioner_of(response, 1.0) is not None:
        return found | {"preconditioned_sharpness": limit}
    memory = method.memory()
    plain = memory.fading == 0 and memory.steps == 0
    return found | {"sharpness": limit, "batch_sharpness": limit if plain else np.nan}
