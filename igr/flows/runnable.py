"""Checks that a loss is a finite scalar at the start, and traces it."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree

from igr.checks import check_value_fn
from igr.compiled import Traced, compiled, traced
from igr.missing_parts import of_whole
from igr.pytrees import combine, partition
from igr.statistics_beside import reject_statistics


def traced_loss(value_fn: Any, params: PyTree) -> Traced:
    """The loss as a function of the floating leaves, traced in this call; see `igr.compiled`.

    Raises:
      TypeError: if `value_fn` is not callable, or does not return a floating number.
      ValueError: if it does not return a scalar, or params have no floating leaf.
    """
    check_value_fn(value_fn)
    reject_statistics(params)
    dynamic, static = partition(params)
    loss = traced(lambda p: of_whole(value_fn, combine(p, static)), dynamic)
    value = loss.shapes
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape != ():
        raise ValueError(f"value_fn must return a scalar; got shape {shape}.")
    if dtype is None or (not np.issubdtype(dtype, np.floating) and dtype.name != "bfloat16"):
        raise TypeError(f"value_fn must return a floating scalar; got dtype {dtype}.")
    return loss


def check_start(value_fn: Any, params: PyTree) -> Traced:
    """The traced loss, checked to be a finite floating scalar at the start.

    Raises:
      ValueError: if it is not finite, or as `traced_loss`.
      TypeError: as `traced_loss`.
    """
    loss = traced_loss(value_fn, params)
    value = _value(loss, partition(params)[0])
    if isinstance(value, Tracer):
        return loss  # under a transformation there is no number to look at
    if not math.isfinite(value):
        raise ValueError(
            f"value_fn is {float(value)} at the given params: it must be finite at the start"
        )
    return loss


@compiled
def _value(loss: Traced, params: PyTree) -> Any:
    return loss(params)


def time_like(values: Any, params: PyTree) -> Any:
    """A step or times in the dtype of params, at least float32; numpy unless traced."""
    dtype = jnp.result_type(jnp.float32, *(x.dtype for x in jax.tree.leaves(partition(params)[0])))
    return jnp.asarray(values, dtype) if isinstance(values, Tracer) else np.asarray(values, dtype)
