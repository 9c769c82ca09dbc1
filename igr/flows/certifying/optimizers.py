"""Recognises an optimizer given as a function of the learning rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optax

from igr.backward_error import protocols

Optimizer = Callable[..., optax.GradientTransformation]


def is_optimizer(method: Any) -> bool:
    """Whether a value is an optimizer's factory, or a transformation, and not a `Method`."""
    if protocols.is_method(method):
        return False
    pair = isinstance(method, optax.GradientTransformation)
    return pair or (callable(method) and not isinstance(method, type))


def check_optimizer(optimizer: Any) -> None:
    """Raises `TypeError` unless the optimizer is a function of the learning rate, or None."""
    if isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(
            "optimizer must be a function of the learning rate, such as lambda h: optax.sgd(h): "
            "the order is observed at several of them; got a transformation, whose step is fixed."
        )
    if optimizer is not None and not callable(optimizer):
        raise TypeError(f"optimizer must be a function of the learning rate; got {optimizer!r}.")
