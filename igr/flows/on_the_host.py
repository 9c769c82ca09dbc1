"""Functions that measure outside of JAX's transformations, and say so inside of one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax
import jax.numpy as jnp

from igr.progress.late_bar import under_transformation

P = ParamSpec("P")
R = TypeVar("R")


def on_the_host(fn: Callable[P, R]) -> Callable[P, R]:
    """A function whose numbers have to be known: it decides by them, and returns plain ones.

    Args:
      fn: what it is.

    Returns:
      The same, which raises `TypeError` with what to do where JAX says that a value is traced.
      Such an error of the user's own loss, outside of any transformation, stays as it is.
    """

    @functools.wraps(fn)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return fn(*args, **kwargs)
        except (
            jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError, _Unknown
        ) as error:  # fmt: skip
            # Inside of jit what is made anew is traced as well, and so are the arrays a loss reads.
            if not under_transformation(jnp.zeros(()), args, kwargs):
                raise
            raise _Unknown(
                f"{fn.__name__} must have numbers that are known, for it measures on the host; got "
                "traced ones: call it outside of jit, vmap and grad"
            ) from error

    return called


class _Unknown(TypeError):
    """Of a function that another one of these calls: the user called that one."""
