"""Compiles functions once for equal traces, and traces users' functions in every call.

A user's function may read anything: a global, an attribute, an array it closes over. A program
cached by the function object would use the values read at the first call for ever, and a new
function object in every call would be compiled anew. So a user's function is *traced* in every
call, which takes milliseconds and reads everything afresh; equal traces share one compiled program.
Arrays that a function closes over, and the floating numbers in it, are arguments of the program.
"""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var, jaxpr_as_fun

from igr.compiled.content import Opaque, content, jaxpr_content
from igr.compiled.small_programs import (
    does_little,
    fast_to_compile,
    fills_no_register,
    given_little,
)
from igr.meshes import as_traced

PROGRAMS_KEPT = 128  # each takes about a hundred of the 65,530 memory maps of a process
_TRACES_KEPT = 1024


def traced(fn: Callable[..., Any], *args: Any) -> Traced:
    """The function traced on arguments like these, with everything it reads fixed at this call.

    The result does not depend on later changes of globals, attributes or closures. It is a pytree
    whose leaves are the arrays and numbers that `fn` closes over, and its static part is equal to
    that of any other with the same trace; hand it to a `compiled` function.

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
    """A traced function: the arrays it closes over, and a program hashable by its content."""

    consts: list[Any]
    program: Program = eqx.field(static=True)

    def __call__(self, *args: Any) -> Any:
        """The value of the function at arguments with the shapes it was traced on."""
        p = self.program
        arrays = [x for x in jax.tree.leaves(args) if _is_array(x)]
        wanted = len(p.jaxpr.invars) - len(self.consts)
        if len(arrays) != wanted:
            raise TypeError(f"traced for {wanted} arrays, called with {len(arrays)}")
        run = as_traced(jaxpr_as_fun(ClosedJaxpr(p.jaxpr, [])), [v.aval for v in p.jaxpr.invars])
        # A result that does not depend on the arguments may come as a plain number.
        results = (
            x if _is_array(x) else jnp.asarray(x, getattr(v.aval, "dtype", None))
            for x, v in zip(run(*self.consts, *arrays), p.jaxpr.outvars, strict=True)
        )
        found = [next(results) if m else x for m, x in zip(p.arrays_out, p.fixed_out, strict=True)]
        return jax.tree.unflatten(p.form, found)

    @property
    def shapes(self) -> Any:
        """The function's value with a `jax.ShapeDtypeStruct` for each array, without tracing."""
        p = self.program
        avals: Any = iter(v.aval for v in p.jaxpr.outvars)
        of = lambda aval: jax.ShapeDtypeStruct(aval.shape, aval.dtype)  # noqa: E731
        pairs = zip(p.arrays_out, p.fixed_out, strict=True)
        found = [of(next(avals)) if m else x for m, x in pairs]
        return jax.tree.unflatten(p.form, found)


class Program:
    """A jaxpr whose constants are arguments, equal to any other program of the same content.

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
    """Compiles a function of arrays and static values, once for equal ones; a bounded jit.

    Arrays among the arguments' leaves, also those of a `Traced`, are arguments of the program;
    everything else is static and compared by `content`. At most `PROGRAMS_KEPT` programs are kept
    in all: the least recently used is dropped.

    Args:
      fn: a function defined in a module; users' functions are passed to it as `traced`.
    """

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        leaves, structure = jax.tree.flatten((args, kwargs))
        arrays = [x for x in leaves if _is_array(x)]
        fixed = tuple(None if _is_array(x) else x for x in leaves)
        make = lambda: _Call(fn, structure, fixed, _programs_in((args, kwargs)))  # noqa: E731
        try:
            program = _PROGRAMS.get((fn, structure, content(fixed)), make)
        except Opaque:
            program = make()
        return program(arrays)

    return call


class _Call:
    """The program of a function with its static arguments filled in."""

    def __init__(
        self,
        fn: Callable[..., Any],
        structure: Any,
        fixed: tuple[Any, ...],
        inside: list[Jaxpr],
    ):
        def run(arrays: list[Any]) -> Any:
            following = iter(arrays)
            leaves = [next(following) if x is None else x for x in fixed]
            args, kwargs = jax.tree.unflatten(structure, leaves)
            return fn(*args, **kwargs)

        run.__name__ = run.__qualname__ = getattr(fn, "__name__", "run")
        self._run = eqx.filter_jit(run)
        self._small: Any = None
        if does_little(inside) and (fast := fast_to_compile(fills_no_register(inside))):
            options: dict[str, Any] = {"compiler_options": fast}
            self._small = eqx.filter_jit(run, **options)

    def __call__(self, arrays: list[Any]) -> Any:
        if self._small is not None and given_little(arrays):
            try:
                return self._small(arrays)
            except ValueError as error:
                # Of a program that is traced into another the other's options hold.
                if "top-level" not in str(error):
                    raise
        return self._run(arrays)


def _programs_in(tree: Any) -> list[Jaxpr]:
    """The jaxprs of all traced functions in a pytree."""
    found = jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, Traced))
    return [x.program.jaxpr for x in found if isinstance(x, Traced)]


class _Recent:
    """A bounded table that drops the least recently used entry."""

    def __init__(self, size: int):
        self.size = size
        self._known: OrderedDict[Any, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any, make: Callable[[], Any]) -> Any:
        """The entry for a key, made by `make` if it is not there."""
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


def _token(form: Any, arrays_out: Any, fixed_out: Any, jaxpr: Jaxpr) -> object:
    """One object for all equal traces; a new one where a trace cannot be compared."""
    try:
        key = (form, arrays_out, content(fixed_out), jaxpr_content(jaxpr))
        return _TOKENS.get(key, object)
    except Opaque:
        return object()


def _numbers_as_arguments(jaxpr: Jaxpr) -> tuple[Jaxpr, list[np.ndarray]]:
    """The jaxpr with its floating literals as further constants, and their values.

    Programs that differ in these numbers alone are then one. An exponent stays a literal, because
    XLA compiles x^0.5 as a root.
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
    """A Python number as an array; any other value unchanged."""
    return jnp.asarray(x) if isinstance(x, bool | int | float | complex) else x
