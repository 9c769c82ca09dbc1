"""Methods whose step is a fixed linear combination of the current and past gradients.

theta[n+1] = theta[n] - h sum_k w_k g(theta[n-k]) is known by the transfer function
W(z) = sum_k w_k e^(-kz) of its memory, and nothing else about it matters for the equation it
follows: F = -B(h D_F) W(h D_F) g, B(z) = z/(e^z - 1).

Decoupled weight decay takes h c theta off besides, past the memory. The term is turned into one of
a loss: with w = W(0) and g_c the gradient of E + (c/w) |theta|^2/2,

    W g + c theta = W g_c + c (1 - W/w) theta,    (1 - W(h D_F)/w) theta = h D_F theta + .. = O(h),

and D_F theta = F, so that F = -(1 + c h V)^(-1) B W g_c with V(z) = (1 - W(z)/w)/(e^z - 1): the
equation of a linear method again, on the loss with decay, and with coefficients that depend on c h.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sympy

from igr.backward_error import trees
from igr.backward_error.algebra.orders import check_order
from igr.backward_error.algebra.taylor import STEP, fraction_field, taylor_coefficients
from igr.backward_error.algebra.taylor import Z as z
from igr.backward_error.protocols import LinearResponse, Memory
from igr.backward_error.stability import RecurrenceResponse, recurrence_memory, require_numbers
from igr.backward_error.trees.equation import ModifiedEquation
from igr.backward_error.trees.one_loss import ZERO, Gradient
from igr.backward_error.trees.series import invariant_field
from igr.checks import Count


@dataclass(frozen=True)
class LinearMethod:
    """An optimizer whose step is a fixed linear combination of current and past gradients.

    theta[n+1] = theta[n] - h (sum_k w_k g(theta[n-k]) + c theta[n]).

    Attributes:
      name: how the method calls itself in print and in errors.
      transfer: W(z) = sum_k w_k e^(-kz), a sympy expression in `igr.methods.z`.
      weight_decay: c, decoupled: it does not enter the memory.
      rho: where not zero, g is not taken at theta but at the SAM point theta + rho grad E.
      normalized: whether that point is theta + rho grad E/|grad E| instead.
    """

    name: str
    transfer: sympy.Expr
    weight_decay: sympy.Expr = ZERO
    rho: sympy.Expr = ZERO
    normalized: bool = False

    @property
    def parameters(self) -> tuple[sympy.Symbol, ...]:
        """The free symbols, such as beta, sorted by name."""
        free = self.transfer.free_symbols | self.weight_decay.free_symbols | self.rho.free_symbols
        return tuple(sorted(free - {z}, key=str))

    @property
    def gradient(self) -> Gradient:
        """Which gradient g is in the equation: of E or E with decay, at theta or SAM's point."""
        if self.weight_decay == 0:
            return Gradient(ZERO, self.rho, self.normalized)
        (total,) = taylor_coefficients(self.transfer, 1)
        return Gradient(sympy.cancel(self.weight_decay / total), self.rho, self.normalized)

    @property
    def kept(self) -> tuple[str, ...]:
        """The empty tuple: no optimizer state is a variable of the flow."""
        return ()

    def equation(self, order: Count) -> ModifiedEquation:
        """The modified equation with terms up to h^order."""
        order = check_order(order)
        weights, domain = self.field_weights(order + 1)
        whole = ModifiedEquation(self.name, order, weights, domain, self.gradient)
        return whole.truncate(order)  # in the powers of h that stand in coefficients too

    def memory(self) -> Memory:
        """How fast and how far back gradients enter a step, as a `Memory`.

        Raises:
          ValueError: if the method has open symbols, or no finite memory (see `recurrence`).
        """
        require_numbers(self)
        b, a = self.recurrence
        return recurrence_memory(a, b)

    def response(self) -> LinearResponse:
        """How the method acts on one mode of a quadratic; weight decay and rho are left out."""
        require_numbers(self)
        return RecurrenceResponse(*self.recurrence)

    def taylor(self, terms: int) -> list[sympy.Expr]:
        """The first Taylor coefficients at z = 0 of B(z) W(z), where B(z) = z/(e^z - 1).

        The field is F = -B(h D_F) W(h D_F) g. With weight decay c the function is B W/(1 + c h V)
        and each coefficient a polynomial in h, truncated so that with z ~ h no term is beyond the
        last coefficient's order.
        """
        plain = self.transfer * z / (sympy.exp(z) - 1)
        if self.weight_decay == 0:
            return taylor_coefficients(plain, terms)
        total = taylor_coefficients(self.transfer, 1)[0]
        fading = (1 - self.transfer / total) / (sympy.exp(z) - 1)
        exact = taylor_coefficients(plain / (1 + self.weight_decay * STEP * fading), terms)
        return [
            sympy.Add(
                *(
                    part * STEP**k
                    for k, part in enumerate(taylor_coefficients(c.subs(STEP, z), terms - j))
                )
            )
            for j, c in enumerate(exact)
        ]

    def field_weights(self, vertices: int) -> tuple[dict[int, Any], Any]:
        """The modified field's weights b(t), up to so many vertices, and their sympy domain.

        The keys are trees as integers of `trees.rooted`, at most `vertices` large.

        Solves F = -B(h D_F) W(h D_F) g in a ring, without division: the coefficients of B W are
        brought to a common denominator first.
        """
        coefficients = self.taylor(vertices)
        field, elements = fraction_field(coefficients)
        ring = field.get_ring() if field.is_QQ or field.is_FractionField else field
        denominator = ring.one
        if ring != field:
            for element in elements:
                denominator = ring.lcm(denominator, ring.convert(field.denom(element)))
        numerators = [
            ring.convert_from(element * field.convert_from(denominator, ring), field)
            for element in elements
        ]
        scaled = invariant_field(numerators, vertices)
        powers = [field.one]
        for _ in range(vertices):
            powers.append(powers[-1] * field.convert_from(denominator, ring))
        weights = {
            t: field.convert_from(weight, ring) / powers[trees.size(t)]
            for t, weight in scaled.items()
            if weight
        }
        return weights, field

    @cached_property
    def recurrence(self) -> tuple[tuple[sympy.Expr, ...], tuple[sympy.Expr, ...]]:
        """The coefficients (b, a) of the memory as a recurrence with finitely many terms.

        Returns:
          (b, a) with a_0 = 1 and W = sum_i b_i q^i / sum_i a_i q^i at q = e^(-z): the direction
          d[n] = sum_i b_i g[n-i] - sum_{i>0} a_i d[n-i] of the step theta[n+1] = theta[n] - h d[n].

        Raises:
          ValueError: if W is not a rational function of e^(-z) that is finite as e^(-z) goes to 0:
            then no optimizer with finite memory has it.
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
