"""Splits a field of the term algebra into preconditioned descent on a loss and the rest.

To first order in h a field is

    F_0 = -P_0 g - C_0 theta,      F_1 = sum_j a_j H[b_j] + R,

everything elementwise but the Hessian H. Where a_j = -k_j P_0 with a number k_j, the term is
-P_0 times the gradient of k_j sum_i psi_j(g_i), psi_j' = b_j, kept states and the time held; and
where R = -P_1 g - C_1 theta, it changes the preconditioner and the weight decay alone. Then

    F = -(P_0 + h P_1) grad[E + h sum_j k_j sum_i psi_j] - (C_0 + h C_1) theta + O(h^2).

A factor a_j that depends on |g| alone is one more case: phi(|g|^2) H g is half the gradient of the
integral of phi.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mpmath
import sympy

from igr.backward_error.protocols import UnansweredError
from igr.backward_error.terms.algebra import THETA, G

HIGHEST = 1
SQUARE = sympy.Symbol("S", positive=True)  # |g|^2
_ZERO = sympy.Integer(0)


@dataclass(frozen=True)
class Descent:
    """A field split into preconditioned descent on a loss, weight decay, and the rest.

    Attributes:
      preconditioner: P_0, P_1.
      decay: C_0, C_1.
      penalty: the coefficients of psi by powers of h; the loss gains the sum of psi over
        coordinates.
      of_length: the loss's terms in the squared length `SQUARE` of g, by powers of h.
      obstruction: the remaining terms, by powers of h.
    """

    preconditioner: tuple[sympy.Expr, ...]
    decay: tuple[sympy.Expr, ...]
    penalty: tuple[sympy.Expr, ...]
    of_length: tuple[sympy.Expr, ...]
    obstruction: tuple[tuple[sympy.Expr, ...], ...]


def descent(eq: Any, order: int) -> Descent:
    """Splits the field of an equation, up to h^order, into descent on a loss, decay and the rest.

    Args:
      eq: an `ElementwiseEquation`.
      order: 0 or 1.

    Raises:
      UnansweredError: for a higher order, or where an integral has no closed form.
    """
    if order > HIGHEST:
        raise UnansweredError(
            f"the field of {eq.name} is taken apart up to h^{HIGHEST}; got order {order}: use "
            f"truncate({HIGHEST})."
        )
    (first, decay, rest) = _factors(eq.field[0], set(eq.contractions) | set(eq.products))
    found = Descent((-first,), (-decay,), (_ZERO,), (_ZERO,), (rest,))
    return found if order == 0 else _with_first_order(eq, found)


def _with_first_order(eq: Any, found: Descent) -> Descent:
    metric = found.preconditioner[0]
    penalty, of_length, elementwise = _ZERO, _ZERO, _ZERO
    obstruction = []
    for atom, factor in _by_contraction(eq.field[1], eq.contractions).items():
        if atom is None:
            elementwise += factor
            continue
        vectors = eq.contractions[atom].vectors
        ratio = None if metric == 0 or len(vectors) != 1 else _ratio(-factor, metric, eq)
        if ratio is None:
            obstruction.append(factor * atom)
        elif ratio.free_symbols & set(eq.products):
            (square,) = ratio.free_symbols & set(eq.products)
            if vectors[0] != G:
                obstruction.append(factor * atom)
                continue
            half = _integral(ratio.xreplace({square: SQUARE}) / 2, SQUARE, eq)
            of_length += half
        else:
            psi = _integral(vectors[0], G, eq, metric)
            penalty += ratio * psi
            # H[b(g, theta)] is the gradient of psi but for what moves theta itself.
            elementwise += ratio * metric * sympy.diff(psi, THETA)
    scale, decay, rest = _factors(elementwise, set(eq.contractions) | set(eq.products))
    return Descent(
        (metric, -scale),
        (*found.decay, -decay),
        (_ZERO, penalty),
        (_ZERO, of_length),
        (*found.obstruction, (*obstruction, *rest)),
    )


def _by_contraction(
    expression: sympy.Expr, contractions: Any
) -> dict[sympy.Symbol | None, sympy.Expr]:
    """The factor of each contraction in an expression; the key None holds the remaining terms."""
    present = sorted(expression.free_symbols & set(contractions), key=str)
    parts: dict[sympy.Symbol | None, sympy.Expr] = {}
    rest = expression
    for atom in present:
        factor = sympy.diff(expression, atom)
        if factor.free_symbols & set(present):
            return {None: expression}  # contractions multiplied with one another
        parts[atom] = factor
        rest = rest.xreplace({atom: _ZERO})
    return {None: rest, **parts}


def _ratio(factor: sympy.Expr, metric: sympy.Expr, eq: Any) -> sympy.Expr | None:
    """The k with factor = k metric, if it is the same at every coordinate; otherwise None."""
    vectors = {G, THETA, *eq.states, *eq.contractions}
    lengths = {s for s, (a, b) in eq.products.items() if a == b == G}
    ratio = factor / metric
    if ratio.free_symbols & vectors:
        if _varies(ratio, vectors):
            return None
        ratio = sympy.simplify(ratio)
    others = set(eq.products) - lengths
    return None if ratio.free_symbols & (vectors | others) else ratio


def _varies(ratio: sympy.Expr, along: set[sympy.Symbol]) -> bool:
    """Whether a ratio differs between points, tested in numbers: simplifying can take minutes."""
    symbols = sorted(ratio.free_symbols, key=str)
    value = sympy.lambdify(symbols, ratio, "mpmath")
    for size in (1, 4):  # times after the first steps, and elements of any size
        first = [size * (1 + sympy.Rational(7 + 2 * i, 11 + i)) for i in range(len(symbols))]
        second = [x + size * sympy.Rational(3, 7 + i) if s in along else x
                  for i, (s, x) in enumerate(zip(symbols, first, strict=True))]  # fmt: skip
        try:
            a, b = (complex(value(*map(mpmath.mpf, map(str, map(sympy.Float, point)))))
                    for point in (first, second))  # fmt: skip
        except (TypeError, ValueError, ZeroDivisionError):
            continue
        if abs(a - b) > 1e-6 * (abs(a) + abs(b)):
            return True
    return False


def _factors(
    expression: sympy.Expr, foreign: set[sympy.Symbol]
) -> tuple[sympy.Expr, sympy.Expr, tuple[sympy.Expr, ...]]:
    """The factor of g, the factor of theta, and a tuple of the terms that have neither."""
    of_gradient, of_params, rest = _ZERO, _ZERO, []
    for whole in sympy.Add.make_args(expression):
        pieces = [whole]
        if not _has_factor(whole, G) and not _has_factor(whole, THETA):
            pieces = list(sympy.Add.make_args(sympy.expand_mul(whole, deep=False)))
        for term in pieces:
            if term == 0:
                continue
            if term.free_symbols & foreign:
                rest.append(term)
            elif _has_factor(term, G):
                of_gradient += term / G
            elif _has_factor(term, THETA):
                of_params += term / THETA
            else:
                rest.append(term)
    return of_gradient, of_params, tuple(rest)


def _has_factor(term: sympy.Expr, symbol: sympy.Symbol) -> bool:
    """Whether a term, as a product, has a positive integer power of the symbol as a factor."""
    powers = (f.as_base_exp() for f in sympy.Mul.make_args(term))
    exponents = [k for base, k in powers if base == symbol]
    return any(k.is_Integer and k >= 1 for k in exponents[:1])


def _integral(
    function: sympy.Expr, by: sympy.Symbol, eq: Any, metric: sympy.Expr = _ZERO
) -> sympy.Expr:
    """The integral from 0 of a function of the real symbol `by`; multiples of `metric` are kept."""
    if function.is_Add:
        return sympy.Add(*(_integral(term, by, eq, metric) for term in function.args))
    factor, inside = function.as_independent(by, as_Add=False)
    number = sympy.simplify(factor / metric) if metric != 0 else None
    if number is not None and number.is_number:
        factor = number * metric
    if inside.as_poly(by) is not None:
        return factor * inside.as_poly(by).integrate().as_expr()
    # On one side; an odd function has an even integral.
    x = sympy.Dummy("x", positive=True)
    found = sympy.integrate(inside.xreplace({by: x}), x, manual=True)
    real = sympy.Dummy("x", real=True)
    one_sided = by == SQUARE or (
        sympy.simplify(inside.xreplace({by: real}) + inside.xreplace({by: -real})) == 0
    )
    if found.has(sympy.Integral) or not one_sided:
        raise UnansweredError(
            f"the modified loss of {eq.name} has an integral without a closed form, that of "
            f"{function} over {by}"
        )
    start = found.subs(x, 0)
    if start.is_finite:
        found -= start
    return factor * found.xreplace({x: by if by == SQUARE else sympy.sqrt(by**2)})
