"""Methods whose step is a fixed linear combination of the gradients seen so far.

theta[n+1] = theta[n] - h sum_k w_k g(theta[n-k]) is known by the transfer function
W(z) = sum_k w_k e^(-kz) of its memory, and nothing else about it matters for the equation it
follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sympy

from igr.backward_error import trees
from igr.backward_error.series import invariant_field
from igr.backward_error.taylor import Z as z
from igr.backward_error.taylor import taylor_coefficients


@dataclass(frozen=True)
class LinearMethod:
    """theta[n+1] = theta[n] - h sum_k w_k g(theta[n-k]), by its transfer function.

    Attributes:
      name: how the method calls itself in print and in errors.
      transfer: W(z) = sum_k w_k e^(-kz), a sympy expression in `igr.methods.z`.
    """

    name: str
    transfer: sympy.Expr

    @property
    def parameters(self) -> tuple[sympy.Symbol, ...]:
        """The symbols left open, such as beta, in the order of their names."""
        return tuple(sorted(self.transfer.free_symbols - {z}, key=str))

    def taylor(self, terms: int) -> list[sympy.Expr]:
        """Taylor coefficients of B(z) W(z), B(z) = z/(e^z - 1): F = -B(h D_F) W(h D_F) g."""
        return taylor_coefficients(self.transfer * z / (sympy.exp(z) - 1), terms)

    def field_weights(self, vertices: int) -> tuple[dict[int, Any], Any]:
        """The weights b(t) of the modified field, up to so many vertices, and their domain.

        Solves F = -B(h D_F) W(h D_F) g, all in a ring: the coefficients of B W are brought to one
        denominator first.
        """
        coefficients = self.taylor(vertices)
        field, elements = sympy.construct_domain(coefficients, field=True)
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
