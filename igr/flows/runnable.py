"""What can be run: a method with a step of its own, a loss that is finite at the start."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree

from igr.backward_error.methods import (
    ElementwiseMethod,
    EpochMethod,
    Method,
    SampledMethod,
    SharpnessAware,
)
from igr.checks import check_value_fn
from igr.flows.closures import of_floating_leaves
from igr.pytrees import floating


def check_runnable(method: Any) -> None:
    """Raises `TypeError` unless a method can be run, and its limits found, from its description."""
    if isinstance(method, Method | ElementwiseMethod | SharpnessAware):
        return
    if isinstance(method, EpochMethod | SampledMethod):
        raise TypeError(
            f"{method.name} takes one batch a step, and this function follows a whole loss: "
            "igr.flows.run_epochs runs epochs, igr.vector_field(..., batches=...) or "
            "igr.flows.stochastic_field compiles the equation"
        )
    raise TypeError(f"method is one of igr.methods, such as gradient_descent(); got {method!r}")


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
