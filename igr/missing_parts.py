"""Errors for a function of a whole model that is given only the trained part of one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax

from igr.convolutions import differentiable_when_spread


def of_whole(fn: Callable[..., Any], params: Any, *args: Any) -> Any:
    """The value fn(params, *args), with a clear error if params lack a part of the model.

    Its derivatives are right on several devices (`igr.convolutions`).

    `equinox.filter` and `equinox.partition` put None in place of activation functions and all else
    that is not trained: a function that calls them fails with "'NoneType' object is not callable".

    Args:
        fn: A function of params, and perhaps of further arguments.
        params: A pytree.
        *args: The further arguments.

    Raises:
        TypeError: As `fn`, and where it fails for a None that params hold, or for a vector in
            place of params.

    >>> of_whole(lambda p: p["f"](p["x"]), {"f": abs, "x": -3})
    3
    """
    try:
        return differentiable_when_spread(fn)(params, *args)
    except (TypeError, AttributeError) as error:
        missing = [] if "NoneType" not in str(error) else _missing(params)
        if not missing and _flattened(params, error):
            raise TypeError(
                f"{error}: the function was given params as one vector of shape {params.shape}. "
                "If optax.flatten made it, chain this rule before or after optax.flatten: it needs "
                "the loss of the params themselves."
            ) from error
        if not missing:
            raise
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise TypeError(
            f"{error}: params have None at {shown}, as equinox.filter and equinox.partition leave "
            "it, and the function was given them alone. Let it put the model together: "
            "params, rest = equinox.partition(model, equinox.is_inexact_array), and "
            "value_fn = lambda params: loss(equinox.combine(params, rest))."
        ) from error


def naming_what_is_missing(fn: Any) -> Any:
    """The function, or sequence of functions, of params as `of_whole` calls it.

    Args:
        fn: A function whose first argument is params, or a tuple or list of such; any other value
          is
            returned unchanged.

    >>> naming_what_is_missing(lambda p: p + 1)(1)
    2
    """
    if isinstance(fn, tuple | list):
        return tuple(map(naming_what_is_missing, fn))
    return functools.partial(of_whole, fn) if callable(fn) else fn


def _flattened(params: Any, error: Exception) -> bool:
    """Whether a function failed because params are one vector, without leaves by name."""
    by_name = "string indexing" in str(error) or isinstance(error, AttributeError)
    return isinstance(params, jax.Array) and params.ndim == 1 and by_name


def _missing(params: Any) -> list[str]:
    """The paths at which params hold None."""
    leaves = jax.tree_util.tree_leaves_with_path(params, is_leaf=lambda leaf: leaf is None)
    return ["params" + jax.tree_util.keystr(path) for path, leaf in leaves if leaf is None]
