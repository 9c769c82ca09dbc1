"""Compiled once, and never stale.

A function that a user hands over may read anything: a global, an attribute, an array it closes
over. A program cached by the function object would go on with what was read the first time; one
made anew in every call would be compiled anew. So a user's function is *traced* at the border of
every call, which takes milliseconds and reads everything afresh, and what was traced decides which
program runs: equal traces share one. What a function closes over, and the plain numbers in it, are
arguments of the program and not part of it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var, jaxpr_as_fun

PROGRAMS_KEPT = 128  # each takes about a hundred of the 65,530 memory maps of a process
_TRACES_KEPT = 1024
_RULES_WITHIN_RULES = 2  # derivative rules that use functions with rules of their own


def traced(fn: Callable[..., Any], *args: Any) -> Traced:
    """A function as it is now, traced on arguments like these.

    Everything it reads is read here: the result no longer depends on globals, attributes or
    closures. It is a pytree whose leaves are the arrays and numbers that `fn` closes over, and is
    equal in its static part to any other with the same trace; hand it to a `compiled` function.

    Args:
      fn: pure up to what it reads; its arguments and results are pytrees of arrays and anything.
      *args: examples, of which only the shapes and dtypes of arrays count (`jax.ShapeDtypeStruct`
        will do). Other leaves are held fixed.

    >>> scale = 2.0
    >>> double = traced(lambda x: scale * x, jnp.ones(2))
    >>> scale = 3.0
    >>> triple = traced(lambda x: scale * x, jnp.ones(2))
    >>> print(double(jnp.ones(2)), triple(jnp.ones(2)), double.program == triple.program)
    [2. 2.] [3. 3.] True
    """
    leaves, structure = jax.tree.flatten(args)
    moving = [_is_array(x) or isinstance(x, jax.ShapeDtypeStruct) for x in leaves]
    fixed = [None if m else x for m, x in zip(moving, leaves, strict=True)]
    out: list[Any] = []

    def flat(*arrays: Any) -> list[Any]:
        following = iter(arrays)
        whole = [next(following) if m else x for m, x in zip(moving, fixed, strict=True)]
        result = jax.tree.map(number_as_array, fn(*jax.tree.unflatten(structure, whole)))
        found, form = jax.tree.flatten(result)
        rest = [None if _is_array(x) else x for x in found]
        out[:] = [form, tuple(_is_array(x) for x in found), tuple(rest)]
        return [x for x in found if _is_array(x)]

    closed = jax.make_jaxpr(flat)(*[x for m, x in zip(moving, leaves, strict=True) if m])
    jaxpr, numbers = _numbers_as_arguments(closed.jaxpr)
    form, arrays_out, rest = out
    program = Program(jaxpr, _token(form, arrays_out, rest, jaxpr), form, arrays_out, rest)
    return Traced([*closed.consts, *numbers], program)


class Traced(eqx.Module):
    """A function traced: what it closes over, and a program that is hashable by what it does."""

    consts: list[Any]
    program: Program = eqx.field(static=True)

    def __call__(self, *args: Any) -> Any:
        """The function on arguments of the shapes it was traced on."""
        p = self.program
        arrays = [x for x in jax.tree.leaves(args) if _is_array(x)]
        wanted = len(p.jaxpr.invars) - len(self.consts)
        if len(arrays) != wanted:
            raise TypeError(f"traced for {wanted} arrays, called with {len(arrays)}")
        # A result that does not depend on the arguments may come as a plain number.
        results = (
            x if _is_array(x) else jnp.asarray(x, getattr(v.aval, "dtype", None))
            for x, v in zip(
                jaxpr_as_fun(ClosedJaxpr(p.jaxpr, []))(*self.consts, *arrays),
                p.jaxpr.outvars,
                strict=True,
            )
        )
        found = [next(results) if m else x for m, x in zip(p.arrays_out, p.fixed_out, strict=True)]
        return jax.tree.unflatten(p.form, found)

    @property
    def shapes(self) -> Any:
        """What it returns, a `jax.ShapeDtypeStruct` for an array: known without tracing again."""
        p = self.program
        avals: Any = iter(v.aval for v in p.jaxpr.outvars)
        of = lambda aval: jax.ShapeDtypeStruct(aval.shape, aval.dtype)  # noqa: E731
        pairs = zip(p.arrays_out, p.fixed_out, strict=True)
        found = [of(next(avals)) if m else x for m, x in pairs]
        return jax.tree.unflatten(p.form, found)


class Program:
    """A jaxpr whose constants are arguments, equal to another that does the same.

    Attributes:
      jaxpr: closed over nothing; its constants are given where it is called.
      token: one object for all equal traces.
      form: the structure of the result.
      arrays_out: which leaves of the result are arrays.
      fixed_out: the other leaves.
    """

    def __init__(self, jaxpr: Jaxpr, token: object, form: Any, arrays_out: Any, fixed_out: Any):
        self.jaxpr, self.token = jaxpr, token
        self.form, self.arrays_out, self.fixed_out = form, arrays_out, fixed_out

    def __hash__(self) -> int:
        return hash(self.token)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Program) and self.token is other.token


def compiled(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function of arrays and static values, once for equal ones; like a bounded jit.

    Arrays among the arguments' leaves, also those of a `Traced`, are arguments of the program;
    everything else is static and compared by `content`. Not more than `PROGRAMS_KEPT` programs
    are kept, in all: the one used longest ago is dropped.

    Args:
      fn: a function of a module, not of a call; users' functions enter it as `traced`.
    """

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        leaves, structure = jax.tree.flatten((args, kwargs))
        arrays = [x for x in leaves if _is_array(x)]
        fixed = tuple(None if _is_array(x) else x for x in leaves)
        try:
            key = (fn, structure, content(fixed))
            program = _PROGRAMS.get(key, lambda: _Call(fn, structure, fixed))
        except Opaque:
            program = _Call(fn, structure, fixed)
        return program(arrays)

    return call


class _Call:
    """One program: a function with its static arguments filled in."""

    def __init__(self, fn: Callable[..., Any], structure: Any, fixed: tuple[Any, ...]):
        def run(arrays: list[Any]) -> Any:
            following = iter(arrays)
            leaves = [next(following) if x is None else x for x in fixed]
            args, kwargs = jax.tree.unflatten(structure, leaves)
            return fn(*args, **kwargs)

        run.__name__ = run.__qualname__ = getattr(fn, "__name__", "run")
        self._run = eqx.filter_jit(run)

    def __call__(self, arrays: list[Any]) -> Any:
        return self._run(arrays)


class _Recent:
    """A bounded table: what was used longest ago goes first."""

    def __init__(self, size: int):
        self.size = size
        self._known: OrderedDict[Any, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any, make: Callable[[], Any]) -> Any:
        """What is there for a key, made if it is not."""
        try:
            hash(key)
        except TypeError as error:
            raise Opaque(str(error)) from error
        with self._lock:
            if key not in self._known:
                self._known[key] = make()
                if len(self._known) > self.size:
                    self._known.popitem(last=False)
            self._known.move_to_end(key)
            return self._known[key]

    def __len__(self) -> int:
        return len(self._known)


_PROGRAMS = _Recent(PROGRAMS_KEPT)
_TOKENS = _Recent(_TRACES_KEPT)


class Opaque(TypeError):
    """Something has no content to compare: it is then equal to nothing, and compiled anew."""


def content(value: Any) -> Any:
    """What a static value means, hashable: equal for values that mean the same.

    Numbers are told apart by type and to the last bit, arrays by their bytes.

    Raises:
      Opaque: if it has nothing to compare, as a function made in a call has not.
    """
    if value is None or isinstance(value, bool | int | str | bytes):
        return type(value), value
    if isinstance(value, float):
        return float, value.hex()
    if isinstance(value, complex):
        return complex, value.real.hex(), value.imag.hex()
    if isinstance(value, ClosedJaxpr):
        return ClosedJaxpr, _jaxpr_content(value.jaxpr), tuple(map(content, value.consts))
    if isinstance(value, Jaxpr):
        return Jaxpr, _jaxpr_content(value)
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


def _token(form: Any, arrays_out: Any, fixed_out: Any, jaxpr: Jaxpr) -> object:
    """One object for all equal traces; a new one where a part of them is opaque."""
    try:
        key = (form, arrays_out, content(fixed_out), _jaxpr_content(jaxpr))
        return _TOKENS.get(key, object)
    except Opaque:
        return object()


# --- what a jaxpr does -------------------------------------------------------------------------


def _jaxpr_content(jaxpr: Jaxpr, within: int = 0) -> Any:
    """A jaxpr without names: its variables by number, literals to the last bit, all parameters."""
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
        return _jaxpr_content(value, within)
    return _jaxpr_content(value.jaxpr, within), tuple(map(content, value.consts))


def _rule(eqn: Any, within: int) -> Any:
    """What a user's derivative rule does now: it is traced, for it is read only when it is used."""
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


def _numbers_as_arguments(jaxpr: Jaxpr) -> tuple[Jaxpr, list[np.ndarray]]:
    """Floating literals as further constants, so that other numbers reuse a program.

    An exponent stays: XLA knows x^0.5 to be a root.
    """
    new: list[Var] = []
    values: list[np.ndarray] = []

    def argument(atom: Any) -> Any:
        dtype = getattr(atom.aval, "dtype", np.dtype(bool))
        if not isinstance(atom, Literal) or not jnp.issubdtype(dtype, jnp.floating):
            return atom
        new.append(Var(atom.aval))
        values.append(np.asarray(atom.val, dtype))
        return new[-1]

    eqns = [
        eqn
        if eqn.primitive.name == "pow"
        else eqn.replace(invars=[argument(atom) for atom in eqn.invars])
        for eqn in jaxpr.eqns
    ]
    # Constants stand before the arguments: newer JAX has no other place for added ones.
    arguments = [*jaxpr.constvars, *new, *jaxpr.invars]
    return jaxpr.replace(eqns=eqns, constvars=[], invars=arguments), values


def _is_array(x: Any) -> bool:
    return isinstance(x, jax.Array | np.ndarray | np.generic)


def number_as_array(x: Any) -> Any:
    """A Python number as an array, anything else as it is."""
    return jnp.asarray(x) if isinstance(x, bool | int | float | complex) else x
