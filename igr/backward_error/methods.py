"""What an optimizer is: its memory and its rule.

A linear method steps theta[n+1] = theta[n] - h sum_k w_k g(theta[n-k]): it is known by the
transfer function W(z) = sum_k w_k e^(-kz) of its memory, and nothing else about it matters for
the equation it follows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import sympy

from igr.backward_error.taylor import Z as z
from igr.backward_error.taylor import exact, taylor_coefficients

__all__ = [
    "LinearMethod",
    "ema_momentum",
    "gradient_descent",
    "heavy_ball",
    "linear_memory",
    "nesterov",
    "z",
]

_STEP_BACK = sympy.exp(-z)


@dataclass(frozen=True)
class LinearMethod:
    """theta[n+1] = theta[n] - h sum_k w_k g(theta[n-k]), by its transfer function.

    Attributes:
      name: how the method calls itself in print and in errors.
      transfer: W(z) = sum_k w_k e^(-kz), a sympy expression in `igr.methods.z`.
    """

    name: str
    transfer: sympy.Expr = field(compare=True)

    @property
    def parameters(self) -> tuple[sympy.Symbol, ...]:
        """The symbols left open, such as beta, in the order of their names."""
        return tuple(sorted(self.transfer.free_symbols - {z}, key=str))

    def taylor(self, terms: int) -> list[sympy.Expr]:
        """Taylor coefficients of B(z) W(z), B(z) = z/(e^z - 1): F = -B(h D_F) W(h D_F) g."""
        return taylor_coefficients(self.transfer * z / (sympy.exp(z) - 1), terms)

    @cached_property
    def recurrence(self) -> tuple[tuple[sympy.Expr, ...], tuple[sympy.Expr, ...]]:
        """The memory as a difference equation with finitely many terms.

        Returns:
          (b, a) with a_0 = 1 and W = sum_i b_i q^i / sum_i a_i q^i at q = e^(-z): the direction
          d[n] = sum_i b_i g[n-i] - sum_{i>0} a_i d[n-i] of the step theta[n+1] = theta[n] - h d[n].

        Raises:
          ValueError: if W is not a rational function of e^(-z), or looks ahead, so that no
            optimizer with finite memory has it.
        """
        q = sympy.Symbol("q", positive=True)
        rational = sympy.cancel(sympy.together(self.transfer.subs(z, -sympy.log(q))))
        numerator, denominator = sympy.fraction(rational)
        try:
            b = sympy.Poly(numerator, q).all_coeffs()[::-1]
            a = sympy.Poly(denominator, q).all_coeffs()[::-1]
        except sympy.PolynomialError:
            b, a = [], [sympy.Integer(0)]
        if a[0] == 0:
            raise ValueError(
                f"{self.name} has no finite memory: its transfer function {self.transfer} is not "
                "a rational function of exp(-z) that is finite as exp(-z) goes to 0"
            )
        return (
            tuple(sympy.factor(x / a[0]) for x in b),
            tuple(sympy.factor(x / a[0]) for x in a),
        )


def linear_memory(transfer: Any, name: str | None = None) -> LinearMethod:
    """The method whose step is a fixed linear combination of the gradients seen so far.

    Args:
      transfer: W(z) = sum_k w_k e^(-kz) in `igr.methods.z`, where w_k weighs the gradient of k
        steps ago. Other symbols stay symbols in the result; floats are read as the decimal
        they are written as.
      name: a name for print; the transfer function itself if none is given.

    Returns:
      A method for `igr.modified_equation`.

    Raises:
      TypeError: if `transfer` is not a number or a sympy expression.
      ValueError: if the weights have no finite sum.

    A method that averages the last two gradients:

    >>> from sympy import exp
    >>> from igr.backward_error import methods, modified_equation
    >>> two = methods.linear_memory((1 + exp(-methods.z)) / 2)
    >>> print(modified_equation(two, order=1))
    θ' = -g - h H g + O(h²)
    """
    expression = exact(transfer, "transfer")
    taylor_coefficients(expression, 1)
    return LinearMethod(name or f"linear memory {expression}", expression)


def gradient_descent() -> LinearMethod:
    """theta[n+1] = theta[n] - h g(theta[n]): explicit Euler, W(z) = 1."""
    return LinearMethod("gradient descent", sympy.Integer(1))


def heavy_ball(beta: Any) -> LinearMethod:
    """m <- beta m + g, theta <- theta - h m: `optax.sgd(h, momentum=beta)`.

    W(z) = 1/(1 - beta e^(-z)) (Polyak 1964). `beta` is a number in [0, 1) or a sympy symbol.
    """
    beta = _momentum(beta)
    return LinearMethod(f"heavy ball (beta = {beta})", 1 / (1 - beta * _STEP_BACK))


def ema_momentum(beta: Any) -> LinearMethod:
    """m <- beta m + (1 - beta) g, theta <- theta - h m: averaged momentum, `optax.ema` first.

    W(z) = (1 - beta)/(1 - beta e^(-z)). `beta` is a number in [0, 1) or a sympy symbol.
    """
    beta = _momentum(beta)
    return LinearMethod(f"averaged momentum (beta = {beta})", (1 - beta) / (1 - beta * _STEP_BACK))


def nesterov(beta: Any) -> LinearMethod:
    """m <- beta m + g, theta <- theta - h (g + beta m): `optax.sgd(h, beta, nesterov=True)`.

    W(z) = 1 + beta/(1 - beta e^(-z)) (Nesterov 1983, in the form of Sutskever et al. 2013).
    `beta` is a number in [0, 1) or a sympy symbol.
    """
    beta = _momentum(beta)
    return LinearMethod(f"Nesterov (beta = {beta})", 1 + beta / (1 - beta * _STEP_BACK))


def _momentum(beta: Any) -> sympy.Expr:
    value = exact(beta, "beta")
    if value.is_number and not (value.is_real and 0 <= value < 1):
        raise ValueError(f"beta is a number in [0, 1) or a sympy symbol, got {beta}")
    return value
