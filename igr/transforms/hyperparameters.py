"""Checks of hyperparameters: numbers when they are given, schedules when they run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from igr.checks import Number, check_number

ScalarOrSchedule = Number | jax.Array | Callable[[Any], Any]


def require_number(
    name: str,
    value: Any,
    *,
    at_least: Number | None = None,
    above: Number | None = None,
    schedule: bool = True,
) -> Any:
    """Returns `value`, checked to be a finite number in range or, where allowed, a schedule.

    The range of a JAX array is not checked, because a schedule that `optax.inject_hyperparams`
    evaluates may rightly pass through zero.

    Args:
        name: The argument, for the message.
        value: What was given.
        at_least: What the number must not be below.
        above: What it must exceed.
        schedule: Whether a function of the step count will do.

    Raises:
        TypeError: If the value is no number (nor schedule).
        ValueError: If it is not finite or out of range.
    """
    if callable(value):
        if schedule:
            return value
        raise TypeError(f"{name} must be a number and no schedule; got the function {value!r}.")
    if isinstance(value, jax.Array):
        at_least = above = None
    return check_number(name, value, at_least=at_least, above=above)


def require_static(name: str, value: Any) -> None:
    """Raises if a value that fixes the compiled program is a JAX array.

    `optax.inject_hyperparams` makes such an array of any number that is not declared static.

    Args:
        name: The argument, for the message.
        value: What was given.

    Raises:
        TypeError: If it is an array of JAX.
    """
    if isinstance(value, jax.Array):
        raise TypeError(
            f"{name} must be a Python number, for it fixes the compiled program; got an array. "
            f"Under optax.inject_hyperparams declare it: static_args=({name!r},)."
        )


def sgd(
    learning_rate: ScalarOrSchedule, momentum: Any = None, nesterov: bool = False
) -> optax.GradientTransformation:
    """`optax.sgd`, with its numbers checked.

    Args:
        learning_rate: A positive number, or a schedule.
        momentum: A number, if any.
        nesterov: As in `optax.sgd`.

    Raises:
        TypeError: If one is no number.
        ValueError: If one is not finite, or the learning rate not positive.
    """
    learning_rate = require_number("learning_rate", learning_rate, above=0.0)
    if momentum is not None:
        momentum = require_number("momentum", momentum, schedule=False)
    return optax.sgd(learning_rate, momentum, nesterov)


def at_count(name: str, value: Any, count: Any) -> Any:
    """The number itself, or the value of the schedule at step `count`.

    Raises:
      ValueError: If a schedule comes without `count`, or does not return a scalar.
    """
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
