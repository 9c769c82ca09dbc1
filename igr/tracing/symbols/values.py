"""What a variable of a traced program holds, read in sympy."""

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
    """What a variable holds.

    Attributes:
      expression: of one element; `True` or a condition for a boolean.
      leaf: the leaf of params whose elements it runs over, None if it is the same number for all.
    """

    expression: Any
    leaf: Any = None


class Mixed(NamedTuple):
    """What is no function of one element alone.

    Attributes:
      why: the primitive that mixes elements, or the leaves that meet.
      reads: the symbols it depends on.
      kink: the error of a kink, where that is all that stands in the way.
    """

    why: str
    reads: frozenset[sympy.Symbol]
    kink: KinkError | None = None


def constant(value: Any) -> Value | Mixed:
    """A number, or an array of one number."""
    array = np.asarray(value)
    if array.size == 0:
        return Mixed("an empty array", frozenset())
    first = array.reshape(-1)[0]
    same = array == first
    if array.size > 1 and not (same.all() or (array != array).all()):
        return Mixed("constants that differ from element to element", frozenset())
    return Value(number(first))


def number(value: Any) -> Any:
    """A scalar exactly, a float as the decimal it is written as."""
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
    """The decimal a float was written as, or was computed from as 1 - 0.9999 is."""
    for digits in range(1, 16):
        text = f"{x:.{digits}g}"
        apart = abs(float(text) - x)
        if apart <= 1.2e-16 and apart <= 1e-11 * abs(x):
            return sympy.Rational(text)
    return sympy.Rational(f"{x:.15g}")


def fading_power(expression: Any) -> sympy.Expr | None:
    """b of b^(n + k), 0 < b < 1; None where it is none."""
    if not isinstance(expression, sympy.Pow) or expression.exp.free_symbols != {STEPS}:
        return None
    base = expression.base
    fades = base.is_number and bool(base > 0) and bool(base < 1)
    return base if fades and sympy.diff(expression.exp, STEPS) == 1 else None


def symbols_of(values: Sequence[Value | Mixed]) -> frozenset[sympy.Symbol]:
    """What values depend on."""
    found: frozenset[sympy.Symbol] = frozenset()
    for x in values:
        if isinstance(x, Mixed):
            found |= x.reads
        elif isinstance(x.expression, sympy.Basic):
            found |= x.expression.free_symbols
    return found
