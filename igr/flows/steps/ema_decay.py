"""The rates of kept states per unit of time, as h goes to zero.

A kept average takes in a share r = kappa h of the new value in a step. Its equation holds at a
fixed rate kappa per unit of time: where h shrinks to observe an order, r shrinks with it, so that
(1 - r)^n, what is left of a start after n steps, is the same at the same time. What forgets with
e^(-rho) in a step forgets with e^(-rho h/at) in a step h. Where the whole is renewed in a step,
r = 1, the share is h/at: each step makes so much of the change.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from igr.checks import Number


def share_taken_in(rate: Any, h: Number | Array, at: Number | None) -> float | Array:
    """The share of the new value that a kept average takes in during a step h.

    Args:
      rate: the share at the step `at`.
      h: the step.
      at: the step that the rate is meant for; h if None.
    """
    if at is None or float(rate) == 1:
        return float(rate) if at is None else h / at
    return -jnp.expm1(jnp.log1p(-float(rate)) * h / at)


def forgetting(rate: Any, h: Number | Array, at: Number | None) -> float | Array:
    """The rate lambda per unit of time of the decay e^(-lambda t).

    Args:
      rate: lambda times `at`, the exponent of the decay over a step `at`.
      h: the step.
      at: the step that the rate is meant for; h if None.
    """
    return float(rate) / (h if at is None else at)


def time_of_step(done: Any, h: float | Array) -> Array:
    """The time t = (n + 1) h that a step reads, where n is the number of steps done.

    Rounded up: a schedule that changes at a step compares t/h with its number, and 29 steps of
    0.01 are 28.999999999999996 of them.

    >>> float(time_of_step(28.0, 0.01) / 0.01) >= 29
    True
    """
    time = (jnp.asarray(done, jnp.result_type(float)) + 1) * h
    return time * (1 + 4 * jnp.finfo(time.dtype).eps)
