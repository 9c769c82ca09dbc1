"""Trees of one colour: g is the gradient of E, or of more, or taken elsewhere.

Decoupled weight decay c adds c |theta|^2/2 to the loss and no further term to the algebra;
sharpness-aware minimisation takes the gradient at a point uphill. Both change what the trees are
over and leave the trees as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sympy

from igr.backward_error.algebra.taylor import exact
from igr.backward_error.trees.colouring import Colouring, Losses, symbols
from igr.backward_error.trees.printing import coefficient

ZERO = sympy.Integer(0)


@dataclass(frozen=True)
class Gradient(Colouring):
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

    def no_gradient(self) -> str | None:
        """Why the field is never a gradient, if so."""
        if not self.displaced:
            return None
        return "its gradient is taken at a point uphill, and is not itself a gradient"

    def losses(self, loss: Any, params: Any, name: str) -> Losses:
        """E_c in closed form, or its gradient uphill."""
        del name
        found = symbols(params)
        square = sum((p**2 for p in found), ZERO)
        penalized = exact(loss, "loss") + self.decay * square / 2
        return _Uphill(penalized, found, self) if self.displaced else Losses(penalized, found)

    def meaning(self, latex: bool) -> list[str]:
        """What E, or g, stands for where it is not the loss itself and its gradient."""
        said = []
        if self.decay != 0:
            square = r"\lvert\theta\rvert^{2}" if latex else "|θ|²"
            term = coefficient(self.decay / 2, square, 0, latex)
            said.append(f"E + {term}" + (r" \text{ for } " if latex else " for ") + "E")
        if self.displaced:
            rho = coefficient(self.rho, "", 0, latex).strip()
            g, theta, at = (r"\nabla E", r"\theta", "g") if latex else ("∇E", "θ", "g")
            length = (rf" / \lvert {g}\rvert" if latex else f"/|{g}|") if self.normalized else ""
            said.append(f"{at}({theta}) = {g}({theta} + {rho} {g}{length})")
        return said


class _Uphill(Losses):
    """The gradient of a loss at a point uphill."""

    tidy = staticmethod(lambda expression: expression)  # nested roots would factor for ever

    def __init__(self, loss: sympy.Expr, params: tuple[sympy.Symbol, ...], gradient: Gradient):
        super().__init__(loss, params)
        g = [sympy.diff(loss, p) for p in params]
        length = sympy.sqrt(sum((x**2 for x in g), ZERO)) if gradient.normalized else 1
        there = {p: p + gradient.rho * x / length for p, x in zip(params, g, strict=True)}
        self._gradient = [x.subs(there, simultaneous=True) for x in g]

    def vertex(self, colour: int, batch: int | None) -> list[sympy.Expr]:
        """g, component by component."""
        del colour, batch
        return self._gradient


PLAIN_GRADIENT = Gradient()
