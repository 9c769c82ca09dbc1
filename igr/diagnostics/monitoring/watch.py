"""The warnings of a monitor, and the stability limits of the sharpnesses it measures."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Array

from igr.backward_error.protocols import Method
from igr.flows import kinds


class Watch:
    """Warns, once for each kind, of problems that a monitor's row shows.

    Args:
        method: The method whose stability limits apply.
        measures: The measures by column.

    Attributes:
        limits: The limits by kind of sharpness, see `limits`.
    """

    def __init__(self, method: Method, measures: Mapping[str, Any]):
        self.limits = limits(method)
        self._method, self._measures = method, measures
        self._warned: set[str] = set()

    def __call__(self, step: int, row: Mapping[str, Array]) -> None:
        """Checks a row and warns, with the stack level of a user's call of the monitor."""
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
    """The kind of sharpness in a column, by its measure's name or its own; None if it is none."""
    for kind in SHARPNESSES:
        if (isinstance(measure, str) and measure == kind) or column == kind:
            return kind
    return None


def limits(method: Method) -> dict[str, float]:
    """The stability limit of h times each kind of sharpness; nan where the method has none.

    A method that preconditions has a limit on the preconditioned sharpness alone; any other method
    on the sharpness, and without memory on the batch sharpness too, where it is 2 for SGD.

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
