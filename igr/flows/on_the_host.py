"""Functions that compute on the host and raise a clear error inside JAX's transformations."""

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
    """Wraps a function that needs concrete numbers, so that traced ones raise a clear error.

    Args:
      fn: the function.

    Returns:
      The function, which raises a `TypeError` that says what to do where JAX finds a traced value.
      Such an error from the user's own loss, outside of any transformation, is raised unchanged.
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
    """The error of `on_the_host`: an outer wrapper catches it to report the function called."""
