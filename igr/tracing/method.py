"""Turns a description into a method of the simplest kind that fits."""

from __future__ import annotations

from typing import Any

import sympy

from igr.backward_error.algebra.taylor import Z
from igr.backward_error.methods import ElementwiseMethod, elementwise
from igr.backward_error.methods.linear import LinearMethod
from igr.backward_error.terms.algebra import THETA, G
from igr.tracing.describe import Description

_STEP_BACK = sympy.Symbol("q")


def method_of(description: Description, name: str) -> LinearMethod | ElementwiseMethod:
    """A `LinearMethod` if the description is linear in the gradient, else an elementwise method."""
    linear = _linear(description, name)
    if linear is not None:
        return linear
    channels = {n: (m.of, m.transfer) for n, m in description.memories.items() if not m.kept}
    kept: dict[str, Any] = {
        n: (m.of, m.rate, m.init) for n, m in description.memories.items() if m.kept
    }
    return elementwise(description.rule, channels, kept, description.rates, name=name)


def _linear(description: Description, name: str) -> LinearMethod | None:
    """The description as a linear method with decoupled decay, or None if it is not one."""
    if description.kept or description.rates:
        return None
    transfers: dict[sympy.Symbol, sympy.Expr] = {G: sympy.Integer(1)}
    for memory_name, memory in description.memories.items():
        parts = _coefficients(memory.of, transfers)
        if parts is None or memory.transfer is None:
            return None
        of = sympy.Add(*(c * transfers[s] for s, c in parts.items()))
        transfers[sympy.Symbol(memory_name)] = memory.transfer * of
    parts = _coefficients(description.rule, {**transfers, THETA: sympy.Integer(0)})
    if parts is None:
        return None
    decay = parts.pop(THETA, sympy.Integer(0))
    if decay.is_negative:
        return None
    total = sympy.Add(*(c * transfers[s] for s, c in parts.items()))
    return LinearMethod(name, _tidy(total), decay)


def _coefficients(
    expression: sympy.Expr, of: dict[sympy.Symbol, sympy.Expr]
) -> dict[sympy.Symbol, sympy.Expr] | None:
    """The coefficient of each symbol in a linear combination; None if it is not one."""
    if expression.free_symbols - of.keys():
        return None
    found = {s: sympy.diff(expression, s) for s in of if expression.has(s)}
    if any(not c.is_number for c in found.values()):
        return None
    rest = sympy.expand(expression - sympy.Add(*(c * s for s, c in found.items())))
    return found if rest == 0 else None


def _tidy(transfer: sympy.Expr) -> sympy.Expr:
    """The transfer function as one fraction in e^(-z), with a denominator of 1 at e^(-z) = 0."""
    if not transfer.is_Add and transfer.count(Z) <= 1:
        return transfer
    q = _STEP_BACK
    above, below = sympy.fraction(sympy.cancel(transfer.xreplace({sympy.exp(-Z): q})))
    first = below.xreplace({q: sympy.Integer(0)})
    above, below = (sympy.expand(part / first) for part in (above, below))
    return (above / below).xreplace({q: sympy.exp(-Z)})
