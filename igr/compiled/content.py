"""Hashable contents of static values and traced programs, equal for equal meanings."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

_RULES_WITHIN_RULES = 2  # derivative rules that use functions with rules of their own


class Opaque(TypeError):
    """Raised for a value without comparable content, which is then equal to nothing else."""


def content(value: Any) -> Any:
    """The content of a static value, hashable, and equal for values that mean the same.

    Numbers are compared by type and to the last bit, arrays by their bytes.

    Raises:
      Opaque: if it has no comparable content, as a function made within a call.
    """
    if value is None or isinstance(value, bool | int | str | bytes):
        return type(value), value
    if isinstance(value, float):
        return float, value.hex()
    if isinstance(value, complex):
        return complex, value.real.hex(), value.imag.hex()
    if isinstance(value, ClosedJaxpr):
        return ClosedJaxpr, jaxpr_content(value.jaxpr), tuple(map(content, value.consts))
    if isinstance(value, Jaxpr):
        return Jaxpr, jaxpr_content(value)
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return _array_content(value)
    if isinstance(value, tuple | list):
        return type(value), tuple(map(content, value))
    if isinstance(value, Mapping):
        return type(value), tuple((content(k), content(v)) for k, v in value.items())
    if isinstance(value, set | frozenset):
        return type(value), frozenset(map(content, value))
    if isinstance(value, functools.partial):
        return functools.partial, content((value.func, value.args, value.keywords))
    if (inspect.isfunction(value) or inspect.ismethod(value)) and _is_made_in_a_call(value):
        raise Opaque(f"{value!r} is a function made in a call")
    if type(value).__module__.startswith("igr.") and dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return type(value), tuple(content(getattr(value, f.name)) for f in fields)
    try:
        hash(value)
    except TypeError as error:
        raise Opaque(f"{value!r} has no hash") from error
    return type(value), value


def _is_made_in_a_call(function: Any) -> bool:
    return "<" in function.__qualname__ or inspect.ismethod(function)


def _array_content(value: Any) -> Any:
    if isinstance(value, Tracer):
        raise Opaque("a tracer has no content")
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    array = np.asarray(value)
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).digest()
    weak = bool(getattr(value, "weak_type", False))
    return "array", array.shape, str(array.dtype), weak, digest


def jaxpr_content(jaxpr: Jaxpr, within: int = 0) -> Any:
    """The content of a jaxpr: variables by number, literals to the last bit, all parameters."""
    numbers: dict[Any, int] = {}

    def number(v: Any) -> Any:
        if isinstance(v, Literal):
            return "literal", v.aval, content(np.asarray(v.val))
        return numbers.setdefault(v, len(numbers))

    def binder(v: Any) -> Any:
        return number(v), v.aval

    def equation(eqn: Any) -> Any:
        return (
            eqn.primitive,
            tuple(map(number, eqn.invars)),
            _parameters(eqn, within),
            tuple(map(binder, eqn.outvars)),
            eqn.ctx,
            frozenset(map(str, eqn.effects)),
        )

    return (
        tuple(map(binder, jaxpr.constvars)),
        tuple(map(binder, jaxpr.invars)),
        tuple(map(equation, jaxpr.eqns)),
        tuple(map(number, jaxpr.outvars)),
    )


# Functions among the parameters that the content of the others, or the rule below, stands for.
_THUNKS = ("jvp_jaxpr_fun", "jvp_jaxpr_thunk", "fwd_jaxpr_thunk", "bwd", "out_trees")
# Functions that a program calls when it runs, and that then read what they read.
_CALLED_AT_RUN_TIME = ("pure_callback", "io_callback", "debug_callback")


def _parameters(eqn: Any, within: int) -> Any:
    name = eqn.primitive.name
    custom = name.startswith(("custom_jvp_call", "custom_vjp_call"))
    found = []
    for key, value in sorted(eqn.params.items()):
        if custom and key in _THUNKS:
            continue
        if isinstance(value, ClosedJaxpr | Jaxpr):
            found.append((key, _inner(value, within)))
        elif key == "branches":
            found.append((key, tuple(_inner(x, within) for x in value)))
        elif name in _CALLED_AT_RUN_TIME and key == "callback":
            found.append((key, value))
        else:
            found.append((key, content(value)))
    if custom and within < _RULES_WITHIN_RULES:
        found.append(("rule", _rule(eqn, within)))
    return tuple(found)


def _inner(value: Any, within: int) -> Any:
    if isinstance(value, Jaxpr):
        return jaxpr_content(value, within)
    return jaxpr_content(value.jaxpr, within), tuple(map(content, value.consts))


def _rule(eqn: Any, within: int) -> Any:
    """The content of a user's derivative rule, traced in this call, since it may have changed."""
    avals = [v.aval for v in eqn.invars]
    moving = [jnp.issubdtype(a.dtype, jnp.inexact) for a in avals]
    reverse = eqn.primitive.name.startswith("custom_vjp_call")

    def derivative(args: list[Any], along: list[Any]) -> Any:
        def function(*some: Any) -> list[Any]:
            following = iter(some)
            whole = [next(following) if m else x for m, x in zip(moving, args, strict=True)]
            out = eqn.primitive.bind(*whole, **eqn.primitive.get_bind_params(eqn.params))
            return [x for x in out if jnp.issubdtype(x.dtype, jnp.inexact)]

        at = [x for m, x in zip(moving, args, strict=True) if m]
        if reverse:
            return jax.vjp(function, *at)[1](along)
        return jax.jvp(function, tuple(at), tuple(along))

    def like(aval: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(aval.shape, aval.dtype)

    ends = [v.aval for v in eqn.outvars] if reverse else avals
    along = [like(a) for a in ends if jnp.issubdtype(a.dtype, jnp.inexact)]
    try:
        closed = jax.make_jaxpr(derivative)([like(a) for a in avals], along)
        return _inner(closed, within + 1)
    except Exception as error:  # a rule that cannot be traced is read only where it is used
        raise Opaque(str(error)) from error
