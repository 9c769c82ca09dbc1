"""What g stands for in an equation over trees: the gradient of E, or of more, or elsewhere.

Decoupled weight decay c adds c |theta|^2/2 to the loss and no further term to the algebra;
sharpness-aware minimisation takes the gradient at a point uphill. Both change what the trees are
over and leave the trees as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy

ZERO = sympy.Integer(0)


@dataclass(frozen=True)
class Gradient:
    """g = grad E_c at theta, or at theta + rho grad E_c, or at theta + rho grad E_c/|grad E_c|.

    Attributes:
      decay: c, with E_c = E + c |theta|^2/2.
      rho: how far uphill.
      normalized: whether rho is the distance, or the factor of the gradient.
    """

    decay: sympy.Expr = ZERO
    rho: sympy.Expr = ZERO
    normalized: bool = False

    @property
    def displaced(self) -> bool:
        """Whether it is taken uphill, where it is the gradient of nothing."""
        return self.rho != 0

    @property
    def free_symbols(self) -> set[Any]:
        """The symbols in it."""
        return self.decay.free_symbols | self.rho.free_symbols

    def subs(self, values: Mapping[sympy.Symbol, Any]) -> Gradient:
        """With values for symbols."""
        return Gradient(self.decay.subs(values), self.rho.subs(values), self.normalized)

    def loss(self, loss: sympy.Expr, params: Sequence[sympy.Symbol]) -> sympy.Expr:
        """E_c for a loss in closed form."""
        return loss + self.decay * sum((p**2 for p in params), ZERO) / 2

    def on(self, loss: sympy.Expr, params: Sequence[sympy.Symbol]) -> list[sympy.Expr]:
        """g in closed form."""
        penalized = self.loss(loss, params)
        gradient = [sympy.diff(penalized, p) for p in params]
        if not self.displaced:
            return gradient
        length = sympy.sqrt(sum((x**2 for x in gradient), ZERO)) if self.normalized else 1
        there = {p: p + self.rho * x / length for p, x in zip(params, gradient, strict=True)}
        return [x.subs(there, simultaneous=True) for x in gradient]


PLAIN = Gradient()
