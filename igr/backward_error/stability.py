"""Limits on h times the curvature, from a method's linear response to a quadratic.

On E = lambda theta^2/2 a linear method is a recurrence. With x = h lambda and one root for each
mode, theta[n] = zeta^n, its characteristic polynomial is (zeta - 1) A(zeta) + x B(zeta), with A and
B of the method's memory. A Runge-Kutta method multiplies by its stability function R(x).

Weight decay, and SAM's ascent by a fixed distance, are not counted: with them the response depends
on more than h lambda.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy

from igr.backward_error.protocols import LinearResponse, Memory, Method
from igr.checks import Number

_LARGEST = 1e6


def stability_limit(method: Method) -> float:
    """The largest h * sharpness at which the method does not diverge on a quadratic, a float.

    2 for gradient descent, 2 (1 + beta) for heavy ball, 2 (1 + beta)/(1 + 2 beta) for Nesterov.

    Raises:
      ValueError: if the method has open symbols, no finite memory or no linear response.

    >>> from igr.backward_error import methods
    >>> round(stability_limit(methods.heavy_ball(0.9)), 6)
    3.8
    """
    return _response(method).stability_limit()


def convergence_radius(method: Method) -> float:
    """The h * curvature below which the modified equation converges on a quadratic, a float.

    The field on a mode is log(zeta)/h, where zeta is the root that is 1 at x = 0. It is analytic
    in x until that root meets another or reaches zero: at x = 1 for gradient descent, and already
    at (1 - sqrt(beta))^2 for heavy ball, where the motion begins to oscillate.

    Raises:
      ValueError: if the method has open symbols, no finite memory or no linear response.

    >>> from igr.backward_error import methods
    >>> convergence_radius(methods.gradient_descent())
    1.0
    >>> round(convergence_radius(methods.heavy_ball(0.81)), 9)
    0.01
    """
    return _response(method).convergence_radius()


def slowest_memory(method: Method) -> float:
    """The factor in [0, 1) by which the slowest memory decays in a step: beta for momentum.

    0 for a method without memory, or whose memory ends after finitely many steps. A kept state
    does not count: it is a variable of the equation.

    Raises:
      ValueError: if the method has open symbols or no finite memory.
    """
    return method.memory().fading


def steps_remembered(method: Method) -> int:
    """How many steps back a gradient has a weight of its own, besides the exponential decay.

    Raises:
      ValueError: if the method has open symbols or no finite memory.
    """
    return method.memory().steps


@dataclass(frozen=True)
class RecurrenceResponse:
    """The response of the recurrence d[n] = sum_i b_i g[n-i] - sum_{i>0} a_i d[n-i].

    Attributes:
      b: the weights of the gradients, numbers.
      a: the weights of the directions d, with a_0 = 1. A step is theta[n+1] = theta[n] - h d[n].
    """

    b: Sequence[sympy.Expr]
    a: Sequence[sympy.Expr]

    def stability_limit(self) -> float:
        """The largest x with all roots of the characteristic polynomial in the unit disk."""
        degree = max(len(self.a), len(self.b)) - 1
        # In falling powers of zeta = 1/q.
        a, b = (
            np.array([float(c) for c in part] + [0.0] * (degree + 1 - len(part)))
            for part in (self.a, self.b)
        )
        descent = np.polymul([1.0, -1.0], a)
        return _first_growth(lambda x: max(np.abs(np.roots(np.polyadd(descent, x * b)))))

    def convergence_radius(self) -> float:
        """The smallest |x| at which the root that is 1 at x = 0 may meet another or reach zero."""
        zeta, x = sympy.symbols("zeta x")
        degree = max(len(self.a), len(self.b)) - 1
        descent = (zeta - 1) * sum(c * zeta ** (degree - i) for i, c in enumerate(self.a))
        memory = sum(c * zeta ** (degree - i) for i, c in enumerate(self.b))
        characteristic = sympy.Poly(descent + x * memory, zeta)
        singular = sympy.Poly(characteristic.eval(0), x)
        if characteristic.degree() > 1:
            singular *= sympy.Poly(characteristic.discriminant(), x)
        # A double root at x = 0 belongs to the memory, not to the root that leaves 1.
        distances = [abs(r) for r in _roots(singular) if abs(r) > 1e-9]
        return float(min(distances, default=float("inf")))


@dataclass(frozen=True)
class StabilityFunction:
    """The response of a method that multiplies each mode by R(x), as Runge-Kutta methods do.

    Attributes:
      function: R, a rational function of `x` with numbers for coefficients.
      x: its symbol.
    """

    function: sympy.Expr
    x: sympy.Symbol

    def stability_limit(self) -> float:
        """The largest x up to which |R| <= 1."""
        factor = sympy.lambdify(self.x, self.function)
        return _first_growth(lambda x: abs(factor(x)))

    def convergence_radius(self) -> float:
        """The smallest modulus of a zero or pole of R, within which log R is analytic."""
        parts = sympy.fraction(self.function)
        singularities = [r for part in parts for r in _roots(sympy.Poly(part, self.x))]
        return float(min(map(abs, singularities), default=float("inf")))


def recurrence_memory(a: Sequence[sympy.Expr], b: Sequence[sympy.Expr]) -> Memory:
    """The `Memory` of a recurrence with weights a of the directions and b of the gradients."""
    fading = max(np.abs(np.roots([float(c) for c in a])), default=0.0)
    return Memory(float(fading), max(len(a), len(b)) - 1)


def require_numbers(method: Any) -> None:
    """Raises `ValueError` if the method has open symbols."""
    if method.parameters:
        raise ValueError(
            f"{method.name} has open symbols {', '.join(map(str, method.parameters))}: "
            "give them numbers"
        )


def _first_growth(growth: Callable[[Number], Number]) -> float:
    """The largest x up to which `growth`, a step's largest factor, is at most 1: by bisection."""

    def stable(x: Number) -> bool:
        return bool(growth(x) <= 1 + 1e-9)

    grid = np.geomspace(1e-4, _LARGEST, 2_000)
    unstable = next((i for i, x in enumerate(grid) if not stable(x)), None)
    if unstable is None:
        return float("inf")
    low, high = (grid[unstable - 1] if unstable else 0.0), grid[unstable]
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if stable(middle) else (low, middle)
    return float(low)


def _roots(polynomial: sympy.Poly) -> np.ndarray:
    if polynomial.degree() < 1:
        return np.array([])
    return np.roots([float(c) for c in polynomial.all_coeffs()])


def _response(method: Method) -> LinearResponse:
    response = method.response()
    if response is None:
        raise ValueError(f"{method.name} has no linear response to a mode of a quadratic")
    return response
