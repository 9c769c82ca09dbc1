"""Errors for functions of one example that need a whole batch, as batch normalization does."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np

from igr.missing_parts import of_whole

_ONE_AT_A_TIME = ContextVar("_ONE_AT_A_TIME", default=False)

HOW = (
    "Evaluate the network with its running statistics (use_running_average=True in flax, "
    "is_training=False in haiku, equinox.nn.inference_mode); or take a whole batch as one example: "
    "give the arrays a leading axis of batches, and a loss of one batch."
)


def of_one_example(fn: Callable[..., Any], *args: Any) -> Any:
    """The value fn(*args) for one example, with a clear error if it needs other examples.

    Detected are a named axis of examples that the network asks for, and batch normalizations of
    flax (linen and nnx) and haiku in training mode on a batch of one, which would subtract every
    example from itself.

    Args:
        fn: A function of one example.
        *args: Its arguments.

    Raises:
        ValueError: If it combines examples.

    >>> of_one_example(lambda w, x: w * x, 2.0, 3.0)
    6.0
    """
    try:
        with contextlib.ExitStack() as stack:
            for watched in (_watched_linen, _watched_nnx, _watched_haiku):
                stack.enter_context(watched())
            return of_whole(fn, *args)
    except NameError as error:
        if "axis name" not in str(error):
            raise
        raise ValueError(
            f"the examples meet in the network, which asks for an axis of them by name ({error}); "
            f"here it is given one at a time. {HOW}"
        ) from error


@contextlib.contextmanager
def _watched_linen() -> Iterator[None]:
    linen = sys.modules.get("flax.linen")
    if linen is None:  # then no network is one of its modules
        yield
        return

    def watch(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if isinstance(module, linen.BatchNorm) and context.method_name == "__call__" and args:
            average = module.use_running_average
            if average is None:
                given = args[1] if len(args) > 1 else None
                average = kwargs.get("use_running_average", given)
            if _is_false(average) and not module.is_initializing():
                _require_many(args[0], "flax.linen.BatchNorm", module.name)
        return call(*args, **kwargs)

    with linen.intercept_methods(watch):
        yield


@contextlib.contextmanager
def _watched_nnx() -> Iterator[None]:
    nnx = sys.modules.get("flax.nnx")
    if nnx is None:
        yield
        return
    _watch_nnx(nnx)
    token = _ONE_AT_A_TIME.set(True)
    try:
        yield
    finally:
        _ONE_AT_A_TIME.reset(token)


def _is_false(flag: Any) -> bool:
    """Whether a flag is False, of Python or numpy."""
    return isinstance(flag, bool | np.bool_) and not flag


@functools.cache
def _watch_nnx(nnx: Any) -> None:
    """Wraps nnx's BatchNorm, once, to check its input where examples come one at a time.

    nnx has no way to intercept a call. The wrapper does nothing elsewhere.
    """
    of_batch = nnx.BatchNorm.__call__

    @functools.wraps(of_batch)
    def watched(self: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        average = kwargs.get("use_running_average", args[0] if args else None)
        average = self.use_running_average if average is None else average
        if _ONE_AT_A_TIME.get() and not average:
            _require_many(x, "flax.nnx.BatchNorm", None)
        return of_batch(self, x, *args, **kwargs)

    nnx.BatchNorm.__call__ = watched


@contextlib.contextmanager
def _watched_haiku() -> Iterator[None]:
    haiku = sys.modules.get("haiku")
    if haiku is None:
        yield
        return

    def watch(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        if (
            isinstance(context.module, haiku.BatchNorm)
            and context.method_name == "__call__"
            and args
        ):
            training = kwargs.get("is_training", args[1] if len(args) > 1 else None)
            if isinstance(training, bool | np.bool_) and training and not haiku.running_init():
                _require_many(args[0], "haiku.BatchNorm", context.module.name)
        return call(*args, **kwargs)

    with haiku.intercept_methods(watch):
        yield


def _require_many(x: Any, kind: str, name: str | None) -> None:
    if x.ndim < 2 or x.shape[0] == 1:
        raise ValueError(
            f"the examples meet in the network: {' '.join(filter(None, (kind, name)))} is in "
            f"training mode, where it normalizes by the statistics of a batch, and is given one "
            f"example, of shape {x.shape}. {HOW}"
        )
