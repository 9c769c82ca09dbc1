"""What can be followed: a loss that is finite at the start."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree

from igr.checks import check_value_fn
from igr.flows.closures import of_floating_leaves
from igr.pytrees import floating


def check_start(value_fn: Any, params: PyTree) -> None:
    """Raises unless the loss is a finite floating scalar at the start."""
    check_value_fn(value_fn)
    dynamic, _ = floating(params)
    value = jax.eval_shape(lambda: value_fn(params))
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape != ():
        raise ValueError(f"value_fn must return a scalar, got shape {shape}")
    if dtype is None or (not np.issubdtype(dtype, np.floating) and dtype.name != "bfloat16"):
        raise TypeError(f"value_fn must return a floating scalar, got dtype {dtype}")
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(params)):
        return  # under a transformation there is no number to look at
    start = float(_value(of_floating_leaves(value_fn, params), dynamic))
    if not math.isfinite(start):
        raise ValueError(f"value_fn is {start} at the given params: it must be finite at the start")


@eqx.filter_jit
def _value(loss: Any, params: PyTree) -> Any:
    return loss(params)
