"""Methods without a step on one loss: an error that says what to use instead."""

from __future__ import annotations

from typing import Any, NoReturn

from igr.backward_error.methods import EpochMethod, GameMethod, SampledMethod
from igr.checks import Number
from igr.flows import kinds


@kinds.step_of.register
def _(method: EpochMethod | SampledMethod, h: Any, *, rates_at: Number | None = None) -> NoReturn:
    raise TypeError(
        f"{method.name} takes one batch a step, and this function follows a whole loss: "
        "igr.flows.run_epochs runs epochs, igr.vector_field(..., batches=...) or "
        "igr.flows.stochastic_field compiles the equation"
    )


@kinds.step_of.register
def _(method: GameMethod, h: Any, *, rates_at: Number | None = None) -> NoReturn:
    raise TypeError(
        f"{method.name} moves two players, and this function follows one loss: igr.vector_field "
        "compiles the equation for the pair of their losses"
    )
