"""Sharpness-aware minimisation (SAM): the gradient is taken at a point further up the loss.

SAM steps to theta - h grad E(theta + rho g/|g|) (Foret et al. 2021, equations 2 and 3);
unnormalised SAM leaves the length of g in (Andriushchenko and Flammarion 2022). Two questions are
asked of them:

- rho goes to zero with the step, rho = r h: the ascent is a correction of order h, and SAM follows
  E + h (|g|^2/4 + r |g|), a loss that penalises the length of the gradient;
- rho is a number: however small the step, the run follows -grad E(theta + rho ..), which is not
  the gradient of anything, and the corrections in h are those of Euler's method on that field.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import sympy

from igr.backward_error.algebra.naming import Name
from igr.backward_error.algebra.orders import check_order
from igr.backward_error.algebra.taylor import exact
from igr.backward_error.methods.linear import LinearMethod
from igr.backward_error.methods.tableau import RungeKutta, runge_kutta
from igr.backward_error.protocols import LinearResponse, Memory
from igr.backward_error.stability import RecurrenceResponse, require_numbers
from igr.backward_error.terms.algebra import Algebra, G
from igr.backward_error.terms.equation import ElementwiseEquation
from igr.backward_error.terms.recursion import sharpness_aware_equation
from igr.backward_error.trees.one_loss import ZERO
from igr.checks import Count

Scale = Literal["step", "fixed"]


@dataclass(frozen=True)
class SharpnessAware:
    """SAM with an ascent proportional to the step: theta <- theta - h g(theta + r h g/|g|).

    Attributes:
      name: how the method calls itself in print and in errors.
      ratio: r, the length of the ascent over h.
    """

    name: str
    ratio: sympy.Expr

    @property
    def parameters(self) -> tuple[sympy.Symbol, ...]:
        """The free symbols, sorted by name."""
        return tuple(sorted(self.ratio.free_symbols, key=str))

    @property
    def kept(self) -> tuple[str, ...]:
        """The empty tuple: no optimizer state is a variable of the flow."""
        return ()

    def equation(self, order: Count) -> ElementwiseEquation:
        """The modified equation with terms up to h^order."""
        return sharpness_aware_equation(self, check_order(order))

    def memory(self) -> Memory:
        """An empty `Memory`: no earlier gradient enters a step."""
        require_numbers(self)
        return Memory()

    def response(self) -> LinearResponse:
        """The response of gradient descent: the ascent, of length r h, is not counted."""
        require_numbers(self)
        one = (sympy.Integer(1),)
        return RecurrenceResponse(one, one)

    def rule(self, algebra: Algebra, order: int) -> list[sympy.Expr]:
        """The rule Psi as its coefficients of h^0, .., h^order, in the term algebra.

        Psi = sum_k h^k (r^k/k!) L^(k+1)[g, .., g]/|g|^k, the expansion of g(theta + r h g/|g|).
        """
        length = sympy.sqrt(algebra.inner(G, G))
        terms = [G]
        for k in range(1, order + 1):
            terms.append(
                self.ratio**k / (sympy.factorial(k) * length**k) * algebra.contract((G,) * k)
            )
        return terms


def sam(rho: Any, scale: Scale = "step") -> SharpnessAware | LinearMethod:
    """Sharpness-aware minimisation (SAM): theta <- theta - h g(theta + rho g/|g|).

    Args:
      rho: the length of the ascent, a number of at least 0 or a sympy symbol.
      scale: "step" if the ascent is `rho` times the step h, so that both shrink together and it
        shows as a correction of order h; "fixed" if it is `rho` itself, as it is run in practice:
        `optax.contrib.sam` with `optax.chain(optax.contrib.normalize(), optax.sgd(rho))` as the
        adversarial optimizer.

    Returns:
      A method for `igr.modified_equation`.

    Raises:
      ValueError: if `rho` is negative or `scale` is neither.

    Foret et al. (2021), equations 2 and 3. The rule is not defined where the gradient vanishes.

    >>> from igr.backward_error import modified_equation
    >>> print(modified_equation(sam(2), 1))
    θ' = -g - h (|g| + 4)/(2 |g|) H g + O(h²)
    >>> print(modified_equation(sam(0.05, "fixed"), 1))
    θ' = -g - h/2 H g + O(h²), with g(θ) = ∇E(θ + 1/20 ∇E/|∇E|)
    """
    value = _distance(rho, scale)
    if value == 0:
        return LinearMethod("SAM (rho = 0)", sympy.Integer(1))
    if scale == "fixed":
        return LinearMethod(Name("SAM", {"rho": value}), sympy.Integer(1), ZERO, value, True)
    return SharpnessAware(Name("SAM", {"rho/h": value}), value)


def usam(rho: Any, scale: Scale = "step") -> RungeKutta | LinearMethod:
    """Unnormalised SAM: theta <- theta - h g(theta + rho g(theta)).

    Args:
      rho: the factor of the gradient in the ascent, a number of at least 0 or a sympy symbol.
      scale: "step" if the factor is `rho` times the step h, so that both shrink together: a
        Runge-Kutta method of two stages, one of them upward. "fixed" if it is `rho` itself.

    Returns:
      A method for `igr.modified_equation`.

    Raises:
      ValueError: if `rho` is negative or `scale` is neither.

    Andriushchenko and Flammarion (2022), without the normalisation of Foret et al. (2021).

    >>> from igr.backward_error import modified_equation
    >>> print(modified_equation(usam(2), 1).modified_loss())
    E + 5 h/4 |g|² + O(h²)
    """
    value = _distance(rho, scale)
    if scale == "fixed":
        return LinearMethod(Name("USAM", {"rho": value}), sympy.Integer(1), ZERO, value)
    return runge_kutta([[0, 0], [-value, 0]], [0, 1], name=Name("USAM", {"rho/h": value}))


def _distance(rho: Any, scale: str) -> sympy.Expr:
    value = exact(rho, "rho")
    if value.is_number and not (value.is_real and value >= 0):
        raise ValueError(f"rho must be a number of at least 0 or a sympy symbol; got {rho}.")
    if scale not in ("step", "fixed"):
        raise ValueError(f"scale must be 'step' (rho times h) or 'fixed'; got {scale!r}.")
    return value
