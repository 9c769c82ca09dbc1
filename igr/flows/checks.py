"""What is checked before long work starts, with errors that say what is allowed."""

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
from igr.flows.closures import of_floating_leaves
from igr.flows.floating import floating


def check_step(name: str, h: Any) -> None:
    """Raises `ValueError` unless a step size is positive and finite (tracers pass)."""
    if isinstance(h, Tracer):
        return
    try:
        value = float(h)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} is a positive number, got {h!r}") from error
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be positive and finite, got {value}")


def check_count(name: str, value: Any, least: int) -> int:
    """Raises unless a count is an integer of at least so much."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} is an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)


def check_value_fn(value_fn: Any) -> None:
    """Raises `TypeError` unless the loss is callable."""
    if not callable(value_fn):
        raise TypeError(f"value_fn is a function of params that returns a scalar, got {value_fn!r}")


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
