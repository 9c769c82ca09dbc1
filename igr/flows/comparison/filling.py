"""The start-up of a method's memory, and the kept states in an optimizer's state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import PyTree

from igr.backward_error.protocols import Method
from igr.checks import Count, check_choice, check_count
from igr.compiled import Traced
from igr.flows.start_up import has_first_steps

_LAGS = 32  # of the slowest memory, after which kept states have settled

StartUp = Literal["burn-in", "weights", "shift", "cold"]


def steps_to_fill(method: Method) -> int:
    """The number of steps after which all but 1e-8 of a memory's weight is in use."""
    fading, steps = method.memory()
    if fading == 0:
        return steps
    return int(np.ceil(np.log(1e-8) / np.log(fading)))


def start_up_of(
    method: Method, start_up: StartUp | None, burn_in: Count | None
) -> tuple[StartUp, int]:
    """The start-up to use, checked, and the number of burn-in steps.

    Raises:
      ValueError: for a start-up that is unknown, or that the method does not support.
    """
    if start_up is not None:
        check_choice("start_up", start_up, ("burn-in", "weights", "shift", "cold"))
    if burn_in is not None:
        burn_in = check_count("burn_in", burn_in, 0)
        if start_up not in (None, "burn-in"):
            raise ValueError(f"burn_in = {burn_in} is for start_up = 'burn-in'; got {start_up!r}.")
        return ("burn-in" if burn_in else "cold"), burn_in
    if start_up in ("weights", "shift") and not has_first_steps(method):
        raise ValueError(
            f"start_up = {start_up!r} is for linear methods with memory; {method.name} takes "
            "'burn-in' or 'cold'"
        )
    if start_up in (None, "burn-in"):
        # After n steps a kept average, its bias corrected, changes by 1/n of itself in a step, and
        # by the lag of the memories beside it over n while these look back: squared, a thousandth.
        settled = int(np.ceil(_LAGS / (1 - method.memory().fading))) if method.kept else 0
        return "burn-in", max(steps_to_fill(method), settled)
    return start_up, 0


def said(start_up: StartUp, burn_in: int, filling: int) -> str:
    """The start-up in words, as a comparison prints it."""
    if not filling and not burn_in:
        return "no memory to fill"
    return {
        "burn-in": f"burn-in of {burn_in} steps",
        "weights": f"step-dependent weights for {filling} steps",
        "shift": "start shifted by the first steps",
        "cold": "cold start: every order is only O(h) close",
    }[start_up]


def kept_states(names: Sequence[str], state: Any) -> dict[str, PyTree]:
    """The kept states by name, found in the state of any optax transformation.

    Raises:
      ValueError: unless there is exactly one part of each name.
    """
    kept = {}
    for name in names:
        try:
            kept[name] = optax.tree.get(state, name)
        except KeyError as error:
            raise ValueError(
                f"the optimizer's state should have one part named {name!r}, which the method "
                f"keeps: {error}"
            ) from error
        if kept[name] is None:
            raise ValueError(
                f"the optimizer's state has no part named {name!r}, which the method keeps; "
                "describe the method with that state eliminated, or run the optimizer that has it"
            )
    return kept


def check_motion(
    one_step: Traced, loss: Traced, params: PyTree, state: Any, burn_in: int, default: bool
) -> None:
    """Raises if the optimizer does not move after the burn-in although the gradient is not zero.

    Args:
      one_step: `(loss, params, state) -> params, state, ..`.
      loss: the loss, a function of the floating leaves.
      params: the floating leaves after the burn-in.
      state: the optimizer's state after the burn-in.
      burn_in: the number of burn-in steps done.
      default: whether that number is the default.

    Raises:
      ValueError: if params do not change in the step, as after the end of a schedule.
    """
    after, _, _, slope = one_step(loss, params, state)
    if isinstance(slope, Tracer) or not slope > 0:
        return
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(after), strict=True)
    if any(bool(jnp.any(x != y)) for x, y in pairs):
        return
    raise _stands_still(burn_in, default)


def check_moved(recorded: PyTree, burn_in: int, default: bool) -> None:
    """Raises if no record of runs after the burn-in differs from the first.

    `recorded` has a leading axis of records; the error is that of `check_motion`.
    """
    if not any(bool(jnp.any(x != x[:1])) for x in jax.tree.leaves(recorded)):
        raise _stands_still(burn_in, default)


def _stands_still(burn_in: int, default: bool) -> ValueError:
    """The error to raise where an optimizer no longer moves after the burn-in."""
    how = "which is as long as its memory takes to fill" if default else "as given"
    return ValueError(
        f"the optimizer stands still after the burn-in of {burn_in} steps, {how}: a schedule that "
        "has ended by then? Give burn_in = a number of steps well within the schedule, such as "
        f"burn_in = {min(20, burn_in // 2)}, or 0 to begin at the start; or a longer schedule"
    )
