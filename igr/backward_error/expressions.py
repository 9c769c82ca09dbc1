"""Expressions from text, by a whitelist: nothing is ever evaluated as Python."""

from __future__ import annotations

import ast
import operator
from collections.abc import Mapping

import sympy

FUNCTIONS = {
    name: getattr(sympy, name)
    for name in ("exp", "log", "sqrt", "sin", "cos", "tan", "sinh", "cosh", "tanh", "atan", "erf")
}
CONSTANTS = {"pi": sympy.pi}

_BINARY = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_LONGEST = 2_000
_LARGEST_EXPONENT = 64


def parse(text: str, symbols: Mapping[str, sympy.Symbol] | None = None) -> sympy.Expr:
    """Reads an expression such as `(y - a*b*x)**2/2`.

    Args:
      text: numbers, names, `+ - * / ** ( )`, and the functions in `FUNCTIONS`. `^` is read as
        `**`. Decimal numbers are read as the exact fraction that is written.
      symbols: symbols to use for these names; any other name becomes a plain `sympy.Symbol`.

    Returns:
      The sympy expression.

    Raises:
      ValueError: for anything else, naming what is allowed. Nothing in the text is run.

    >>> parse("(y - a*b*x)^2 / 2")
    (-a*b*x + y)**2/2
    """
    if len(text) > _LONGEST:
        raise ValueError(f"an expression has at most {_LONGEST} characters, got {len(text)}")
    try:
        tree = ast.parse(text.strip().replace("^", "**"), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _refusal(text, "it is not a formula") from error
    try:
        return _build(tree.body, dict(symbols or {}), text)
    except RecursionError as error:
        raise _refusal(text, "it is nested too deeply") from error


def _build(node: ast.expr, symbols: Mapping[str, sympy.Symbol], text: str) -> sympy.Expr:
    match node:
        case ast.Constant(value=bool()):
            raise _refusal(text, f"{node.value!r} is not a number")
        case ast.Constant(value=int(value)):
            return sympy.Integer(value)
        case ast.Constant(value=float()):
            written = ast.get_source_segment(text.strip().replace("^", "**"), node)
            return sympy.Rational(written)
        case ast.Name(id=name):
            if name.startswith("_"):
                raise _refusal(text, f"the name {name!r} is not allowed")
            return symbols.get(name) or CONSTANTS.get(name) or sympy.Symbol(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_build(operand, symbols, text)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _build(operand, symbols, text)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            a, b = _build(left, symbols, text), _build(right, symbols, text)
            if isinstance(op, ast.Pow) and b.is_number and abs(b) > _LARGEST_EXPONENT:
                raise _refusal(text, f"exponents are at most {_LARGEST_EXPONENT}, got {b}")
            if isinstance(op, ast.Div) and b.is_zero:
                raise _refusal(text, "it divides by zero")
            return _BINARY[type(op)](a, b)
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in FUNCTIONS:
            return FUNCTIONS[name](_build(argument, symbols, text))
        case _:
            raise _refusal(text, f"{type(node).__name__} is not allowed")


def _refusal(text: str, reason: str) -> ValueError:
    shown = text if len(text) <= 60 else text[:57] + "..."
    return ValueError(
        f"cannot read the expression {shown!r}: {reason}. Allowed are numbers, names, "
        f"+ - * / ** and parentheses, and the functions {', '.join(FUNCTIONS)}"
    )
