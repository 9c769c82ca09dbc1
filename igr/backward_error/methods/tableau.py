"""Runge-Kutta methods for the gradient flow, explicit or implicit, by their tableau.

One step from theta with step h is

    k_i = f(theta + h sum_j a_ij k_j),    theta <- theta + h sum_i b_i k_i,    f = -grad E.

The step is a series over trees whose weights are sums over the tableau (Hairer, Lubich and Wanner,
*Geometric Numerical Integration*, III.1, Theorem 1.4), and the modified field is its logarithm
(IX.9).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sympy

from igr.backward_error import trees
from igr.backward_error.algebra.orders import check_order
from igr.backward_error.algebra.taylor import exact, fraction_field
from igr.backward_error.protocols import LinearResponse, Memory
from igr.backward_error.stability import StabilityFunction, require_numbers
from igr.backward_error.trees.equation import ModifiedEquation
from igr.backward_error.trees.gradient import PLAIN, Gradient
from igr.backward_error.trees.series import logarithm


@dataclass(frozen=True)
class RungeKutta:
    """A method without memory, by its tableau.

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
        """The symbols left open, in the order of their names."""
        free: set[Any] = set()
        for entry in (*self.b, *(a for row in self.A for a in row)):
            free |= entry.free_symbols
        return tuple(sorted(free, key=str))

    @property
    def gradient(self) -> Gradient:
        """What g is in the equation of the method: the gradient of E."""
        return PLAIN

    @property
    def explicit(self) -> bool:
        """Whether each stage needs only those before it."""
        return all(a == 0 for i, row in enumerate(self.A) for a in row[i:])

    @property
    def kept(self) -> tuple[str, ...]:
        """No state stays a variable of the flow."""
        return ()

    def equation(self, order: int) -> ModifiedEquation:
        """The modified equation, to h^order."""
        order = check_order(order)
        weights, domain = self.field_weights(order + 1)
        return ModifiedEquation(self.name, order, weights, domain, self.gradient)

    def memory(self) -> Memory:
        """None."""
        require_numbers(self)
        return Memory()

    def response(self) -> LinearResponse:
        """What it does to one mode of a quadratic: it multiplies by its stability function."""
        require_numbers(self)
        x = sympy.Symbol("x")
        return StabilityFunction(self.stability_function(x), x)

    def field_weights(self, vertices: int) -> tuple[dict[int, Any], Any]:
        """The weights b(t) of the modified field, up to so many vertices, and their domain."""
        s = len(self.b)
        entries = [*self.b, *(a for row in self.A for a in row)]
        domain, elements = fraction_field(entries)
        b, A = elements[:s], [elements[s * (i + 1) : s * (i + 2)] for i in range(s)]
        stages: dict[int, list[Any]] = {}  # the product over the children of sum_j a_ij stage_j
        step: dict[int, Any] = {}
        for n in range(1, vertices + 1):
            for t in trees.of_order(n):
                products = [domain.one] * s
                for child in trees.children(t):
                    below = stages[child]
                    for i in range(s):
                        inner = sum((A[i][j] * below[j] for j in range(s)), domain.zero)
                        products[i] = products[i] * inner
                stages[t] = products
                weight = sum((b[i] * products[i] for i in range(s)), domain.zero)
                if weight:
                    step[t] = weight
        return logarithm(step, vertices), domain

    def stability_function(self, x: sympy.Symbol) -> sympy.Expr:
        """R with theta[n+1] = R(x) theta[n] on E = lambda theta^2/2, x = h lambda."""
        s = len(self.b)
        A, b, ones = sympy.Matrix(self.A), sympy.Matrix(self.b), sympy.ones(s, 1)
        identity = sympy.eye(s)
        top = (identity + x * A - x * ones * b.T).det()
        return sympy.cancel(top / (identity + x * A).det())


def runge_kutta(
    A: Sequence[Sequence[Any]], b: Sequence[Any], name: str | None = None
) -> RungeKutta:
    """The Runge-Kutta method with this tableau, applied to the gradient flow.

    Args:
      A: s x s coefficients: numbers or sympy expressions; floats are read as the decimal they are
        written as, so write thirds as fractions.
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
    weights = tuple(exact(x, "b") for x in b)
    rows = tuple(tuple(exact(a, "A") for a in row) for row in A)
    s = len(weights)
    if s == 0 or len(rows) != s or any(len(row) != s for row in rows):
        shape = f"{len(rows)} rows of lengths {[len(row) for row in rows]}"
        raise ValueError(f"A must be square with as many rows as b has weights ({s}), got {shape}")
    total = sympy.simplify(sum(weights))
    if total != 1:
        raise ValueError(f"the tableau is not consistent: b must sum to 1, got {total}")
    return RungeKutta(name or f"Runge-Kutta of {s} stage{'s' if s > 1 else ''}", rows, weights)
