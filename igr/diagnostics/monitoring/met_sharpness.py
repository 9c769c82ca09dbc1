"""Which columns of a monitor are a sharpness that an optimizer meets, and the limit of each."""

from __future__ import annotations

from typing import Any

import numpy as np

from igr.backward_error.protocols import Method
from igr.flows import kinds

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
