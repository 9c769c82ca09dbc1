"""A loss with the arrays it closes over as arguments, traced once for the shapes it meets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import equinox as eqx
import jax
from jax.core import Tracer
from jaxtyping import Array, PyTree

from igr.pytrees import combine, floating

ValueFn = Callable[[PyTree], Array]

_TRACED: WeakKeyDictionary[Any, dict[Any, ValueFn]] = WeakKeyDictionary()


def of_floating_leaves(value_fn: ValueFn, params: PyTree) -> ValueFn:
    """The loss as a function of the floating leaves, a pytree of the arrays it closes over.

    Passed to a jitted function, a data set in the loss is an argument of the program and not a
    constant in it. As under `jax.jit`, a function object is traced once for the shapes it is given:
    programs made of it are compiled once, and what it closes over must not change.

    Args:
      value_fn: `params -> scalar`.
      params: where it will be called, up to the floating leaves' values.

    Raises:
      ValueError: if params have no floating leaf.
    """
    dynamic, static = floating(params)

    def convert() -> ValueFn:
        return eqx.filter_closure_convert(lambda p: value_fn(combine(p, static)), dynamic)

    leaves, structure = jax.tree.flatten(dynamic)
    if jax.tree.leaves(static) or any(isinstance(x, Tracer) for x in leaves):
        return convert()
    shapes = tuple((x.shape, str(x.dtype), bool(getattr(x, "weak_type", False))) for x in leaves)
    key = structure, shapes, jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]
    try:
        traced = _TRACED.setdefault(value_fn, {})
    except TypeError:  # no hash, or no weak reference: a module with arrays, a partial
        return convert()
    if key not in traced:
        converted = convert()
        if any(isinstance(x, Tracer) for x in jax.tree.leaves(converted)):
            return converted
        traced[key] = converted
    return traced[key]
