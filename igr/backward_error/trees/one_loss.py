"""Trees of one colour: g is the gradient of E, of E with weight decay, or is taken at SAM's point.

Decoupled weight decay c adds c |theta|^2/2 to the loss and no further term to the algebra;
sharpness-aware minimisation takes the gradient at theta + rho grad E. Both change the vector field
that the trees are differentials of, and leave the trees as they are.
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
    """The colouring of one loss: g is the gradient of E_c, at theta or at SAM's point.

    Attributes:
      decay: c, with E_c = E + c |theta|^2/2.
      rho: g is taken at theta + rho grad E_c, which is theta itself if rho is 0.
      normalized: whether it is taken at theta + rho grad E_c/|grad E_c| instead.
    """

    decay: sympy.Expr = ZERO
    rho: sympy.Expr = ZERO
    normalized: bool = False

    @property
    def displaced(self) -> bool:
        """Whether g is taken at another point than theta; it then is the gradient of no loss."""
        return self.rho != 0

    @property
    def free_symbols(self) -> set[Any]:
        """The set of free symbols in decay and rho."""
        return self.decay.free_symbols | self.rho.free_symbols

    def subs(self, values: Mapping[sympy.Symbol, Any]) -> Gradient:
        """The same colouring with these values in place of symbols."""
        return Gradient(self.decay.subs(values), self.rho.subs(values), self.normalized)

    def no_gradient(self) -> str | None:
        """The reason why the field is never a gradient, or None if it may be one."""
        if not self.displaced:
            return None
        return "its gradient is taken at a point uphill, and is not itself a gradient"

    def losses(self, loss: Any, params: Any, name: str) -> Losses:
        """E_c in closed form, or its gradient at SAM's point."""
        del name
        found = symbols(params)
        square = sum((p**2 for p in found), ZERO)
        penalized = exact(loss, "loss") + self.decay * square / 2
        return _SAMGradient(penalized, found, self) if self.displaced else Losses(penalized, found)

    def meaning(self, latex: bool) -> list[str]:
        """Remarks on what E or g stands for, where it is not the loss itself or its gradient."""
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


class _SAMGradient(Losses):
    """The gradient of a loss at SAM's point theta + rho grad E, as a list of components."""

    tidy = staticmethod(lambda expression: expression)  # nested roots would factor for ever

    def __init__(self, loss: sympy.Expr, params: tuple[sympy.Symbol, ...], gradient: Gradient):
        super().__init__(loss, params)
        g = [sympy.diff(loss, p) for p in params]
        length = sympy.sqrt(sum((x**2 for x in g), ZERO)) if gradient.normalized else 1
        there = {p: p + gradient.rho * x / length for p, x in zip(params, g, strict=True)}
        self._gradient = [x.subs(there, simultaneous=True) for x in g]

    def vertex(self, colour: int, batch: int | None) -> list[sympy.Expr]:
        """The components of g at SAM's point."""
        del colour, batch
        return self._gradient


PLAIN_GRADIENT = Gradient()
