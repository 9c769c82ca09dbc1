"""The values of a traced program's variables in sympy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import sympy

from igr.checks import Number
from igr.tracing.unreadable import KinkError

STEPS = sympy.Symbol("n", integer=True, nonnegative=True)  # the steps done before this one
RATE = sympy.Symbol("h", positive=True)  # the learning rate


class Value(NamedTuple):
    """The value of a variable as an expression for one element.

    Attributes:
      expression: the value at one element; `True` or a condition for a boolean.
      leaf: the leaf of params whose elements it runs over; None if it is one number for all.
    """

    expression: Any
    leaf: Any = None


class Mixed(NamedTuple):
    """The value of a variable that is not a function of one element alone.

    Attributes:
      why: the primitive that mixes elements, or the leaves that meet.
      reads: the symbols it depends on.
      kink: the error of a kink, if that is the only reason why there is no formula.
    """

    why: str
    reads: frozenset[sympy.Symbol]
    kink: KinkError | None = None


def constant(value: Any) -> Value | Mixed:
    """The value of a constant that is one number, or an array of one number; else `Mixed`."""
    array = np.asarray(value)
    if array.size == 0:
        return Mixed("an empty array", frozenset())
    first = array.reshape(-1)[0]
    same = array == first
    if array.size > 1 and not (same.all() or (array != array).all()):
        return Mixed("constants that differ from element to element", frozenset())
    return Value(number(first))


def number(value: Any) -> Any:
    """A scalar as an exact sympy number, a float read as its shortest decimal."""
    scalar: Any = np.asarray(value)
    if scalar.dtype == bool:
        return bool(scalar)
    if np.issubdtype(scalar.dtype, np.integer):
        return sympy.Integer(int(scalar))
    if np.issubdtype(scalar.dtype, np.complexfloating):
        return sympy.nan if scalar.imag else number(scalar.real)
    if np.isnan(scalar):
        return sympy.nan
    if np.isinf(scalar):
        return sympy.oo if scalar > 0 else -sympy.oo
    if scalar.dtype == np.float64:
        return _decimal(float(scalar))
    return sympy.Rational(str(scalar.astype(scalar.dtype)))  # the shortest that rounds to it


def _decimal(x: Number) -> sympy.Rational:
    """A float as the decimal it was written as or computed from, 0.0001 for 1 - 0.9999."""
    for digits in range(1, 16):
        text = f"{x:.{digits}g}"
        apart = abs(float(text) - x)
        if apart <= 1.2e-16 and apart <= 1e-11 * abs(x):
            return sympy.Rational(text)
    return sympy.Rational(f"{x:.15g}")


def fading_power(expression: Any) -> sympy.Expr | None:
    """The base b of an expression b^(n + k) with 0 < b < 1, otherwise None."""
    if not isinstance(expression, sympy.Pow) or expression.exp.free_symbols != {STEPS}:
        return None
    base = expression.base
    fades = base.is_number and bool(base > 0) and bool(base < 1)
    return base if fades and sympy.diff(expression.exp, STEPS) == 1 else None


def symbols_of(values: Sequence[Value | Mixed]) -> frozenset[sympy.Symbol]:
    """The symbols that the values depend on."""
    found: frozenset[sympy.Symbol] = frozenset()
    for x in values:
        if isinstance(x, Mixed):
            found |= x.reads
        elif isinstance(x.expression, sympy.Basic):
            found |= x.expression.free_symbols
    return found
