"""The loss that a rule is given: what it must be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from igr.pytrees import is_trained


def require_value_fn(rule: str, value_fn: Any, oracle: str) -> Callable[[PyTree], Any]:
    """The extra argument `value_fn`, or an error that says how to pass it."""
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
    """The value of a loss, or an error that names `value_fn`."""
    if not is_trained(value) or jnp.ndim(value) != 0:
        is_array = isinstance(value, jax.Array | np.ndarray | np.generic)
        kind = f"shape {jnp.shape(value)}, {value.dtype}" if is_array else repr(value)
        raise ValueError(f"value_fn must return one real floating number; it returned {kind}.")
    return jnp.asarray(value)
