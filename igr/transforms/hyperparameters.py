"""Numbers that the user chooses: scalars checked when they are given, schedules when they run."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

ScalarOrSchedule = float | jax.Array | Callable[[Any], Any]


def require_number(
    name: str,
    value: Any,
    *,
    at_least: float = -math.inf,
    above: float = -math.inf,
    schedule: bool = True,
) -> None:
    """Raise ValueError unless `value` is a finite scalar in range or, where allowed, a schedule.

    Python and numpy numbers are checked in full. A JAX array is checked as far as it is known:
    its shape always, finiteness unless it is traced, and the range never, because a schedule that
    `optax.inject_hyperparams` evaluates may rightly pass through zero.
    """
    allowed = "a finite number"
    if above > -math.inf:
        allowed += f" above {above:g}"
    elif at_least > -math.inf:
        allowed += f" of at least {at_least:g}"
    if schedule:
        allowed += " or a schedule (a function of the step count)"
    if callable(value):
        if schedule:
            return
        raise ValueError(f"{name} must be {allowed}; got the function {value!r}.")
    if isinstance(value, jax.Array):
        ok = value.ndim == 0 and not jnp.issubdtype(value.dtype, jnp.complexfloating)
        ok = ok and _finite_if_known(value)
    else:
        ok = (
            isinstance(value, int | float | np.number)
            and not isinstance(value, bool | complex | np.complexfloating)
            and math.isfinite(value)
            and value >= at_least
            and value > above
        )
    if not ok:
        raise ValueError(f"{name} must be {allowed}; got {value!r}.")


def require_static_int(name: str, value: Any, *, at_least: int) -> int:
    """`value` as an int that is known when the step is traced."""
    if isinstance(value, jax.Array):
        raise ValueError(
            f"{name} must be a Python int, for it fixes the compiled program; got an array. Under "
            f"optax.inject_hyperparams declare it: static_args=({name!r},)."
        )
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < at_least:
        raise ValueError(f"{name} must be an integer of at least {at_least}; got {value!r}.")
    return int(value)


def require_step(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is a number of steps: an int from 0, or an integer array."""
    if isinstance(value, jax.Array | np.ndarray):
        ok = value.ndim == 0 and bool(jnp.issubdtype(value.dtype, jnp.integer))
    else:
        ok = isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= 0
    if not ok:
        raise ValueError(f"{name} must be an integer of at least 0; got {value!r}.")


def at_count(name: str, value: Any, count: Any) -> Any:
    """The number itself, or what the schedule says at step `count`."""
    if not callable(value):
        return value
    if count is None:
        raise ValueError(f"{name} is a schedule, so count= (the number of the step) is needed.")
    number: Any = value(count)
    if jnp.ndim(number) != 0:
        raise ValueError(
            f"the schedule {name} must return a scalar; got shape {jnp.shape(number)}."
        )
    return number


def _finite_if_known(value: jax.Array) -> bool:
    try:
        return math.isfinite(value)
    except jax.errors.ConcretizationTypeError:  # traced: known only when the step runs
        return True
