"""The elementwise JAX primitives as functions of sympy expressions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import sympy
from sympy.core.relational import Relational
from sympy.logic.boolalg import BooleanAtom, BooleanFunction

from igr.tracing.symbols.reader import Reader
from igr.tracing.symbols.values import RATE, STEPS, number


def is_condition(x: Any) -> bool:
    """Whether a value is a condition, true, false or open, and not a number.

    A sympy symbol counts as a number.
    """
    return isinstance(x, bool | np.bool_ | BooleanAtom | BooleanFunction | Relational)


def truth_of(condition: Any) -> int | None:
    """The index of the case that a condition selects, or None where it is not decided."""
    if isinstance(condition, bool | np.bool_):
        return int(condition)
    if isinstance(condition, BooleanAtom):
        return int(bool(condition))
    if isinstance(condition, sympy.Integer):
        return int(condition)
    return None


def chosen_by_step(condition: Any, then: sympy.Expr, otherwise: sympy.Expr) -> sympy.Expr:
    """One of two expressions if the condition on the step is decided, else a `Piecewise`."""
    chosen = truth_of(condition)
    if chosen is not None:
        return then if chosen else otherwise
    return sympy.Piecewise((then, condition), (otherwise, True), evaluate=False)


_LARGEST = {sympy.Integer(2**31 - 1), *(number(np.finfo(d).max) for d in (np.float32, np.float64))}


def _compare(kind: type[Relational]) -> Callable[..., Any]:
    def compare(reader: Reader, leaf: Any, parameters: Any, a: Any, b: Any) -> Any:
        del parameters
        if is_condition(a) or is_condition(b):
            a, b = (sympy.Integer(int(bool(x))) if truth_of(x) is not None else x for x in (a, b))
        if sympy.nan in (a, b):
            return kind is sympy.Ne
        # Counts stop at the largest number of their dtype, which no run reaches.
        if b in _LARGEST and kind in (sympy.Lt, sympy.Le):
            return True
        difference = a - b
        if leaf is not None:
            if difference == 0:
                return kind in (sympy.Eq, sympy.Le, sympy.Ge)
            # At a point like any other two quantities are not equal, and squares are not zero.
            if kind in (sympy.Eq, sympy.Ne):
                return kind is sympy.Ne
            known = reader.assumed(difference)
            if known.is_nonnegative:
                return kind in (sympy.Gt, sympy.Ge)
            if known.is_nonpositive:
                return kind in (sympy.Lt, sympy.Le)
        found = kind(a, b)
        if truth_of(found) is not None:
            return bool(found)
        return reader.settle(found) if found.free_symbols == {STEPS} else found

    return compare


def _extreme(larger: bool) -> Callable[..., Any]:
    def extreme(reader: Reader, leaf: Any, parameters: Any, a: Any, b: Any) -> Any:
        del parameters
        if is_condition(a):
            return sympy.Or(a, b) if larger else sympy.And(a, b)
        known = sympy.Max(a, b) if larger else sympy.Min(a, b)
        if known in (a, b):
            return known
        if leaf is None and (known.free_symbols <= {STEPS}):
            first = sympy.Ge(a, b) if larger else sympy.Le(a, b)
            return chosen_by_step(reader.settle(first), a, b)
        if leaf is None:
            if known.free_symbols == {STEPS, RATE}:
                reader.note(sympy.Ge(a, b))
            return known
        if sympy.oo in (a, b) or -sympy.oo in (a, b):
            return known
        turn = reader.absolute(a - b, "max" if larger else "min")
        return (a + b + (turn if larger else -turn)) / 2

    return extreme


def _sign(reader: Reader, leaf: Any, parameters: Any, x: Any) -> Any:
    del parameters
    if leaf is not None:
        return reader.sign(x, "sign")
    found = sympy.sign(x)
    if found.has(sympy.sign) and x.free_symbols <= {STEPS}:
        reader.note(sympy.Gt(x, 0))
        zero = sympy.Piecewise((0, sympy.Eq(x, 0)), (-1, True), evaluate=False)
        return sympy.Piecewise((1, sympy.Gt(x, 0)), (zero, True), evaluate=False)
    return found


def _power(reader: Reader, leaf: Any, parameters: Any, a: Any, b: Any) -> Any:
    del reader, leaf, parameters
    return a**b


def _converted(reader: Reader, leaf: Any, parameters: Any, x: Any) -> Any:
    del reader, leaf
    if np.issubdtype(parameters["new_dtype"], np.bool_):
        return x if is_condition(x) else sympy.Ne(x, 0)
    if isinstance(x, bool):
        return sympy.Integer(int(x))
    if is_condition(x):
        chosen = truth_of(x)
        if chosen is not None:
            return sympy.Integer(chosen)
        return sympy.Piecewise((1, x), (0, True), evaluate=False)
    if np.issubdtype(parameters["new_dtype"], np.integer) and not x.is_integer:
        return sympy.floor(x)
    return x


def _of(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda reader, leaf, parameters, *x: function(*x)


def _truth_table(function: Callable[..., Any]) -> Callable[..., Any]:
    def apply(reader: Reader, leaf: Any, parameters: Any, *x: Any) -> Any:
        found = function(*x)
        return bool(found) if truth_of(found) is not None else found

    return apply


ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "add": _of(lambda a, b: a + b),
    "add_any": _of(lambda a, b: a + b),
    "sub": _of(lambda a, b: a - b),
    "mul": _of(lambda a, b: a * b),
    "div": _of(lambda a, b: a / b),
    "neg": _of(lambda a: -a),
    "square": _of(lambda a: a**2),
    "integer_pow": lambda reader, leaf, parameters, a: a ** parameters["y"],
    "pow": _power,
    "sqrt": _of(sympy.sqrt),
    "rsqrt": _of(lambda a: 1 / sympy.sqrt(a)),
    "cbrt": _of(lambda a: a ** sympy.Rational(1, 3)),
    "exp": _of(sympy.exp),
    "exp2": _of(lambda a: 2**a),
    "expm1": _of(lambda a: sympy.exp(a) - 1),
    "log": _of(sympy.log),
    "log1p": _of(lambda a: sympy.log(1 + a)),
    "sin": _of(sympy.sin),
    "cos": _of(sympy.cos),
    "tanh": _of(sympy.tanh),
    "logistic": _of(lambda a: 1 / (1 + sympy.exp(-a))),
    "abs": lambda reader, leaf, parameters, a: sympy.Abs(a) if leaf is None else reader.absolute(a),
    "sign": _sign,
    "max": _extreme(True),
    "min": _extreme(False),
    "clamp": lambda reader, leaf, parameters, low, x, high: _extreme(False)(
        reader, leaf, parameters, _extreme(True)(reader, leaf, parameters, x, low), high
    ),
    "floor": _of(sympy.floor),
    "ceil": _of(sympy.ceiling),
    "convert_element_type": _converted,
    "reduce_precision": _of(lambda a: a),
    "real": _of(lambda a: a),
    "conj": _of(lambda a: a),
    "imag": _of(lambda a: sympy.Integer(0)),
    "is_finite": _of(lambda a: True),
    "nextafter": _of(lambda a, b: a),
    "lt": _compare(sympy.Lt),
    "le": _compare(sympy.Le),
    "gt": _compare(sympy.Gt),
    "ge": _compare(sympy.Ge),
    "eq": _compare(sympy.Eq),
    "ne": _compare(sympy.Ne),
    "and": _truth_table(sympy.And),
    "or": _truth_table(sympy.Or),
    "not": _truth_table(sympy.Not),
}
