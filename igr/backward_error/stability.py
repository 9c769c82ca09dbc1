"""How large h times the curvature may be, from what the method does to a quadratic.

On E = lambda theta^2/2 a linear method is a recurrence. With x = h lambda and one root for each
mode, theta[n] = zeta^n, its characteristic polynomial is (zeta - 1) A(zeta) + x B(zeta), with A and
B of the method's memory. A Runge-Kutta method multiplies by its stability function R(x).

Weight decay, and a gradient taken uphill by a given distance, are not counted: they ask for numbers
beside h lambda.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import sympy

from igr.backward_error.methods import ElementwiseMethod, Method, RungeKutta

_LARGEST = 1e6


def stability_limit(method: Method) -> float:
    """The largest h * sharpness at which the method does not diverge on a quadratic.

    2 for gradient descent, 2 (1 + beta) for heavy ball, 2 (1 + beta)/(1 + 2 beta) for Nesterov.

    Raises:
      ValueError: if the method has open symbols or no finite memory.

    >>> from igr.backward_error import methods
    >>> round(stability_limit(methods.heavy_ball(0.9)), 6)
    3.8
    """
    growth = _growth(method)

    def stable(x: float) -> bool:
        return growth(x) <= 1 + 1e-9

    grid = np.geomspace(1e-4, _LARGEST, 2_000)
    unstable = next((i for i, x in enumerate(grid) if not stable(x)), None)
    if unstable is None:
        return float("inf")
    low, high = (grid[unstable - 1] if unstable else 0.0), grid[unstable]
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if stable(middle) else (low, middle)
    return float(low)


def convergence_radius(method: Method) -> float:
    """The h * curvature up to which the modified equation converges on a quadratic.

    The field on a mode is log(zeta)/h, zeta the root that leaves 1. It is analytic in x until
    that root meets another or reaches zero: at x = 1 for gradient descent, and already at
    (1 - sqrt(beta))^2 for heavy ball, where the motion begins to oscillate.

    Raises:
      ValueError: if the method has open symbols or no finite memory.

    >>> from igr.backward_error import methods
    >>> convergence_radius(methods.gradient_descent())
    1.0
    >>> round(convergence_radius(methods.heavy_ball(0.81)), 9)
    0.01
    """
    zeta, x = sympy.symbols("zeta x")
    _numeric(method)
    if isinstance(method, RungeKutta):
        # log R is analytic up to the first zero or pole of R.
        parts = sympy.fraction(method.stability_function(x))
        singularities = [r for part in parts for r in _roots(sympy.Poly(part, x))]
        return float(min(map(abs, singularities), default=float("inf")))
    b, a = method.recurrence
    degree = max(len(a), len(b)) - 1
    descent = (zeta - 1) * sum(c * zeta ** (degree - i) for i, c in enumerate(a))
    memory = sum(c * zeta ** (degree - i) for i, c in enumerate(b))
    characteristic = sympy.Poly(descent + x * memory, zeta)
    singular = sympy.Poly(characteristic.eval(0), x)
    if characteristic.degree() > 1:
        singular *= sympy.Poly(characteristic.discriminant(), x)
    # A double root at x = 0 belongs to the memory, not to the root that leaves 1.
    distances = [abs(r) for r in _roots(singular) if abs(r) > 1e-9]
    return float(min(distances, default=float("inf")))


def slowest_memory(method: Method | ElementwiseMethod) -> float:
    """The factor by which what the method remembers fades in a step: beta for momentum.

    0 for a method without memory, or whose memory ends after finitely many steps. A kept state
    does not count: it is a variable of the equation.
    """
    _numeric(method)
    if isinstance(method, RungeKutta):
        return 0.0
    if isinstance(method, ElementwiseMethod):
        return max(map(slowest_memory, method.memories), default=0.0)
    _, a = method.recurrence
    return float(max(np.abs(np.roots([float(c) for c in a])), default=0.0))


def steps_remembered(method: Method | ElementwiseMethod) -> int:
    """How many steps back a gradient still has a weight of its own, fading ones not counted."""
    _numeric(method)
    if isinstance(method, RungeKutta):
        return 0
    if isinstance(method, ElementwiseMethod):
        return max(map(steps_remembered, method.memories), default=0)
    return max(map(len, method.recurrence)) - 1


def _growth(method: Method) -> Callable[[float], float]:
    """By what factor a step multiplies the fastest growing mode at x = h lambda."""
    _numeric(method)
    if isinstance(method, RungeKutta):
        x = sympy.Symbol("x")
        factor = sympy.lambdify(x, method.stability_function(x))
        return lambda at: abs(factor(at))
    b, a = ([float(c) for c in part] for part in method.recurrence)
    degree = max(len(a), len(b)) - 1
    # In falling powers of zeta = 1/q.
    a, b = (np.array(c + [0.0] * (degree + 1 - len(c))) for c in (a, b))
    descent = np.polymul([1.0, -1.0], a)
    return lambda at: max(np.abs(np.roots(np.polyadd(descent, at * b))))


def _roots(polynomial: sympy.Poly) -> np.ndarray:
    if polynomial.degree() < 1:
        return np.array([])
    return np.roots([float(c) for c in polynomial.all_coeffs()])


def _numeric(method: Method | ElementwiseMethod) -> None:
    if method.parameters:
        raise ValueError(
            f"{method.name} has open symbols {', '.join(map(str, method.parameters))}: "
            "give them numbers"
        )
