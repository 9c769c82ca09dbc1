"""Parses a formula given as text into sympy, by a whitelist: nothing is evaluated as Python."""

from __future__ import annotations

import ast
import operator
import unicodedata
import warnings
from collections.abc import Mapping

import sympy

FUNCTIONS = {
    name: getattr(sympy, name)
    for name in ("exp", "log", "sqrt", "sin", "cos", "tan", "sinh", "cosh", "tanh", "atan", "erf")
}
CONSTANTS = {"pi": sympy.pi}

# What editors and papers have in place of the signs of a keyboard. The middle dot is not among
# them, which in 0·9 is a decimal point.
_SIGNS = str.maketrans(
    {
        "^": "**",
        "\u2212": "-",  # minus sign
        "\u2010": "-",  # hyphen
        "\u2011": "-",  # one that does not break
        "\u2013": "-",  # en dash
        "\ufe63": "-",  # small hyphen
        "\uff0d": "-",  # one of full width
        "\u22c5": "*",  # dot operator
        "\u00d7": "*",  # multiplication sign
        "\u2217": "*",  # asterisk operator
        "\u2219": "*",  # bullet operator
        "\u2215": "/",  # division slash
        "\u2044": "/",  # fraction slash
        "\u00a0": " ",  # space that does not break
        "\u202f": " ",  # a narrow one
        "\u2009": " ",  # thin space
        "\u2003": " ",  # wide space
    }
)

_BINARY = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_LONGEST = 2_000  # characters of text
_DEEPEST = 50  # what stands inside of what; the terms of a sum stand beside each other
_LARGEST_POWER = 64  # of one exponent, and of the degree that nested powers make together
_LARGEST_ARGUMENT = 1_000  # of a function, where it is a number
_MOST_DIGITS = 300  # of a numerator or denominator


def parse(text: str, symbols: Mapping[str, sympy.Symbol] | None = None) -> sympy.Expr:
    """Parses the text of a formula, such as `(y - a*b*x)**2/2`, into a sympy expression.

    Args:
      text: numbers, names, `+ - * / ** ( )`, and the functions in `FUNCTIONS`. `^` is read as `**`,
        and the minus signs, dots and crosses of typesetting as `-` and `*`. Decimal numbers are
        read as the exact fraction that is written. Numbers and powers are bounded, so that no short
        text makes long work.
      symbols: symbols to use for these names; any other name becomes a plain `sympy.Symbol`.

    Returns:
      The sympy expression.

    Raises:
      ValueError: for anything else, naming what is allowed. Nothing in the text is run.
      TypeError: if `text` is not text.

    >>> parse("(y - a*b*x)^2 / 2")
    (-a*b*x + y)**2/2
    """
    if not isinstance(text, str):
        raise TypeError(f"an expression must be text; got {text!r}.")
    if len(text) > _LONGEST:
        raise ValueError(f"an expression must have at most {_LONGEST} characters; got {len(text)}.")
    if "#" in text:
        raise _refusal(text, "a comment is not allowed")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what Python only warns of is no formula either
            tree = ast.parse(text.strip().translate(_SIGNS), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError, Warning) as error:
        raise _refusal(text, "it is not a formula") from error
    if _depth(tree.body) > _DEEPEST:
        raise _refusal(text, f"it is nested too deeply: at most {_DEEPEST} levels")
    try:
        known = {nfkc(name): symbol for name, symbol in (symbols or {}).items()}
        expression = _build(tree.body, known, text)
        degree = _degree(expression)
    except RecursionError as error:  # little is left of the stack
        raise _refusal(text, "it is nested too deeply for Python's stack") from error
    if expression.has(sympy.zoo, sympy.nan, sympy.oo, -sympy.oo, sympy.I):
        raise _refusal(text, "its value is not a finite real number")
    if degree > _LARGEST_POWER:
        raise _refusal(text, f"its degree must be at most {_LARGEST_POWER}; got {degree}")
    return expression


def nfkc(name: str) -> str:
    """The identifier as Python normalizes it (NFKC): the micro sign becomes the Greek letter mu."""
    return unicodedata.normalize("NFKC", name)


def _build(node: ast.expr, symbols: Mapping[str, sympy.Symbol], text: str) -> sympy.Expr:
    return _bounded(_built(node, symbols, text), text)


def _bounded(built: sympy.Expr, text: str) -> sympy.Expr:
    number = built.as_coeff_Mul()[0]
    if number.is_Rational and max(abs(number.p), number.q) >= 10**_MOST_DIGITS:
        raise _refusal(text, f"numbers have at most {_MOST_DIGITS} digits")
    return built


def _chain(node: ast.expr) -> tuple[ast.expr, list[tuple[ast.operator, ast.expr]]]:
    """The first operand of a chain such as a - b + c, and its (operator, operand) pairs in order.

    Python's syntax tree nests such a chain to the left, one level for each operand.
    """
    others = []
    while isinstance(node, ast.BinOp):
        others.append((node.op, node.right))
        node = node.left
    return node, others[::-1]


def _depth(node: ast.expr) -> int:
    """The nesting depth of a syntax tree, a chain of binary operators counted as one level.

    Without recursion, so that Python's recursion limit does not matter.
    """
    level: list[ast.AST] = [node]
    deepest = 0
    while level:
        deepest += 1
        inside: list[ast.AST] = []
        for part in level:
            if isinstance(part, ast.BinOp):
                first, others = _chain(part)
                inside += [first, *(right for _, right in others)]
            else:
                inside += [x for x in ast.iter_child_nodes(part) if isinstance(x, ast.expr)]
        level = inside
    return deepest


def _joined(op: ast.operator, a: sympy.Expr, b: sympy.Expr, text: str) -> sympy.Expr:
    if type(op) not in _BINARY:
        raise _refusal(text, f"{type(op).__name__} is not allowed")
    if isinstance(op, ast.Pow) and b.is_number:
        if not b.is_Rational:
            raise _refusal(text, f"an exponent that is a number must be a fraction; got {b}")
        if abs(b) > _LARGEST_POWER:
            raise _refusal(text, f"exponents must be at most {_LARGEST_POWER}; got {b}")
    if isinstance(op, ast.Div) and b.is_zero:
        raise _refusal(text, "it divides by zero")
    return _BINARY[type(op)](a, b)


def _built(node: ast.expr, symbols: Mapping[str, sympy.Symbol], text: str) -> sympy.Expr:
    match node:
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            return sympy.Integer(value)
        case ast.Constant(value=float()):
            written = str(ast.get_source_segment(text.strip().translate(_SIGNS), node))
            power = written.lower().partition("e")[2]
            if power and abs(int(power)) > _MOST_DIGITS:
                raise _refusal(text, f"numbers have at most {_MOST_DIGITS} digits")
            return sympy.Rational(written)
        case ast.Constant(value=value):
            raise _refusal(text, f"{value!r} is not a real number")
        case ast.Name(id=name):
            if name.startswith("_"):
                raise _refusal(text, f"the name {name!r} is not allowed")
            if name in FUNCTIONS and name not in symbols:
                raise _refusal(text, f"the function {name} wants an argument")
            return symbols.get(name) or CONSTANTS.get(name) or sympy.Symbol(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_build(operand, symbols, text)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _build(operand, symbols, text)
        case ast.BinOp():
            first, others = _chain(node)
            a = _build(first, symbols, text)
            for op, right in others:
                a = _bounded(_joined(op, a, _build(right, symbols, text), text), text)
            return a
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in FUNCTIONS:
            x = _build(argument, symbols, text)
            if x.is_number and not abs(x.evalf()) <= _LARGEST_ARGUMENT:
                raise _refusal(
                    text, f"a number in a function must be at most {_LARGEST_ARGUMENT}; got {x}"
                )
            return FUNCTIONS[name](x)
        case ast.Call(func=ast.Name(id=name)):
            raise _refusal(text, f"{name} is not a function of one argument that is allowed")
        case _:
            raise _refusal(text, f"{type(node).__name__} is not allowed")


def _degree(expression: sympy.Expr) -> sympy.Rational:
    """The polynomial degree an expression would have if it were expanded."""
    if isinstance(expression, sympy.Symbol):
        return sympy.Integer(1)
    inside = [_degree(a) for a in expression.args]
    if isinstance(expression, sympy.Mul):
        return sympy.Add(*inside)
    if isinstance(expression, sympy.Pow) and expression.exp.is_Rational:
        return abs(expression.exp) * inside[0]
    return max(inside, default=sympy.Integer(0))


def _refusal(text: str, reason: str) -> ValueError:
    shown = text if len(text) <= 60 else text[:57] + "..."
    return ValueError(
        f"cannot read the expression {shown!r}: {reason}. Allowed are numbers, names, "
        f"+ - * / ** and parentheses, and the functions {', '.join(FUNCTIONS)}"
    )
