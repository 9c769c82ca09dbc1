"""Runge-Kutta methods for the gradient flow, explicit or implicit, given by their Butcher tableau.

One step from theta with step h is

    k_i = f(theta + h sum_j a_ij k_j),    theta <- theta + h sum_i b_i k_i,    f = -grad E.

The step is a series over trees whose weights are sums over the tableau (Hairer, Lubich and Wanner,
*Geometric Numerical Integration*, III.1, Theorem 1.4), and the modified field is its logarithm
(IX.9).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import sympy

from igr.backward_error.algebra.orders import check_order
from igr.backward_error.algebra.taylor import exact, fraction_field
from igr.backward_error.methods.memoryless import Memoryless
from igr.backward_error.protocols import LinearResponse
from igr.backward_error.stability import StabilityFunction, require_numbers
from igr.backward_error.trees.equation import ModifiedEquation
from igr.backward_error.trees.series import logarithm, runge_kutta_series
from igr.checks import Count

_EPSILON = float(np.finfo(float).eps)
_BY_CHANCE = 0.001


@dataclass(frozen=True)
class RungeKutta(Memoryless):
    """A Runge-Kutta method for the gradient flow, given by its Butcher tableau.

    Attributes:
      name: how the method calls itself in print and in errors.
      A: the s x s coefficients of the stages, as rows.
      b: the s weights, of sum one.
    """

    name: str
    A: tuple[tuple[sympy.Expr, ...], ...]
    b: tuple[sympy.Expr, ...]

    @property
    def parameters(self) -> tuple[sympy.Symbol, ...]:
        """The free symbols of the tableau, sorted by name."""
        free: set[Any] = set()
        for entry in (*self.b, *(a for row in self.A for a in row)):
            free |= entry.free_symbols
        return tuple(sorted(free, key=str))

    @property
    def explicit(self) -> bool:
        """Whether A is strictly lower triangular, so that each stage needs only earlier ones."""
        return all(a == 0 for i, row in enumerate(self.A) for a in row[i:])

    def equation(self, order: Count) -> ModifiedEquation:
        """The modified equation up to h^order: the logarithm of the map of one step."""
        order = check_order(order)
        s = len(self.b)
        domain, entries = fraction_field([*self.b, *(a for row in self.A for a in row)])
        b, A = entries[:s], [entries[s * (i + 1) : s * (i + 2)] for i in range(s)]
        weights = logarithm(runge_kutta_series(A, b, order + 1), order + 1)
        return ModifiedEquation(self.name, order, weights, domain)

    def response(self) -> LinearResponse:
        """How the method acts on one mode of a quadratic: by its stability function R(x)."""
        require_numbers(self)
        x = sympy.Symbol("x")
        return StabilityFunction(self.stability_function(x), x)

    def stability_function(self, x: sympy.Symbol) -> sympy.Expr:
        """The rational function R(x) with theta[n+1] = R(x) theta[n] on E = lambda theta^2/2.

        x stands for h lambda.
        """
        s = len(self.b)
        A, b, ones = sympy.Matrix(self.A), sympy.Matrix(self.b), sympy.ones(s, 1)
        identity = sympy.eye(s)
        top = (identity + x * A - x * ones * b.T).det()
        return sympy.cancel(top / (identity + x * A).det())


def runge_kutta(
    A: Iterable[Iterable[Any]], b: Iterable[Any], name: str | None = None
) -> RungeKutta:
    """The Runge-Kutta method with this Butcher tableau, applied to the gradient flow.

    Args:
      A: s x s coefficients: numbers or sympy expressions, in lists or an array. A float within the
        rounding of its dtype of a fraction is read as that, 1/6 as a sixth; any other as its
        decimal.
      b: s weights.
      name: a name for print.

    Returns:
      A method for `igr.modified_equation`.

    Raises:
      ValueError: if the tableau is not square, does not fit its weights, or is not consistent
        (the weights must sum to one).

    The implicit midpoint rule has no term at h^1, and at h^2 its field is not a gradient:

    >>> from igr.backward_error import modified_equation
    >>> from fractions import Fraction
    >>> print(modified_equation(runge_kutta([[Fraction(1, 2)]], [1]), 2))
    θ' = -g - h² (1/12 H² g - 1/24 ∇³E[g, g]) + O(h³)
    """
    b = list(b)
    weights = tuple(_fraction(x, "b") for x in b)
    rows = tuple(tuple(_fraction(a, "A") for a in row) for row in A)
    s = len(weights)
    if s == 0 or len(rows) != s or any(len(row) != s for row in rows):
        shape = f"{len(rows)} rows of lengths {[len(row) for row in rows]}"
        raise ValueError(f"A must be square with as many rows as b has weights ({s}); got {shape}.")
    total = sympy.simplify(sum(weights))
    rounding = max(map(_rounding, b))
    if total != 1 and abs(total - 1) < 50 * rounding:
        # Irrational weights, rounded: what is missing goes to one of them.
        last = max(i for i, x in enumerate(b) if _rounding(x))
        weights = (*weights[:last], weights[last] + 1 - total, *weights[last + 1 :])
        total = sympy.Integer(1)
    if total != 1:
        raise ValueError(f"the tableau is not consistent: b must sum to 1; got {total}.")
    return RungeKutta(name or f"Runge-Kutta of {s} stage{'s' if s > 1 else ''}", rows, weights)


def _fraction(value: Any, argument: str) -> sympy.Expr:
    """The number as an exact expression; a float near a simple fraction becomes that fraction."""
    rounding = _rounding(value)
    if not rounding:
        return exact(value, argument)
    number = Fraction(float(value))
    # Of numbers picked at random not one in a hundred is so near to one with this denominator.
    near = number.limit_denominator(int((_BY_CHANCE / rounding) ** 0.5))
    if abs(near - number) <= 4.5 * rounding * max(1.0, abs(float(value))):
        return sympy.Rational(near.numerator, near.denominator)
    return exact(value, argument)


def _rounding(value: Any) -> float:
    """The machine epsilon of a float's dtype, or 0 for a number that is exact."""
    dtype = getattr(value, "dtype", None)
    if dtype is not None and np.issubdtype(dtype, np.floating):
        return float(np.finfo(dtype).eps)
    return _EPSILON if isinstance(value, float | sympy.Float) else 0.0
