"""Checks of the loss that a rule is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from igr.pytrees import is_trained


def require_value_fn(rule: str, value_fn: Any, oracle: str) -> Callable[[PyTree], Any]:
    """Returns the extra argument `value_fn`; raises `ValueError` unless it is a function."""
    if value_fn is None:
        raise ValueError(
            f"{rule} needs the loss as an extra argument: update(updates, state, params, "
            "value_fn=...) with value_fn: params -> scalar. Where the training loop cannot pass "
            f"it on (flax's TrainState.apply_gradients), use {oracle} instead."
        )
    if not callable(value_fn):
        raise ValueError(
            f"{rule}: value_fn must be a function params -> scalar; got {type(value_fn).__name__}."
        )
    return value_fn


def require_scalar_loss(value: Any) -> Array:
    """Returns the value of a loss as an array; raises `ValueError` unless it is a scalar."""
    if not is_trained(value) or jnp.ndim(value) != 0:
        is_array = isinstance(value, jax.Array | np.ndarray | np.generic)
        kind = f"shape {jnp.shape(value)}, {value.dtype}" if is_array else repr(value)
        raise ValueError(f"value_fn must return one real floating number; it returned {kind}.")
    return jnp.asarray(value)
