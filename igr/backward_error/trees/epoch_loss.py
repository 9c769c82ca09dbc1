"""The loss whose gradient flow the mean iterate of reshuffled SGD follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import sympy

from igr.backward_error.algebra.taylor import exact
from igr.backward_error.trees.batches import FREE, BatchTree
from igr.backward_error.trees.epoch_printing import contraction
from igr.backward_error.trees.printing import expansion


@dataclass(frozen=True, repr=False)
class EpochLoss:
    """The loss whose gradient flow the mean iterate of epochs follows.

    Attributes:
      name: the method.
      order: the highest power of h kept, 0 or 1.
      num_batches: m.
      coefficients: of h^(n-1) and the contraction over a free tree of n vertices: the loss itself
        and, for an edge whose two vertices share a batch, the mean of |grad L_k|^2.
    """

    name: str
    order: int
    num_batches: sympy.Expr
    coefficients: Mapping[BatchTree, sympy.Expr]

    def on(self, losses: Sequence[sympy.Expr], params: Sequence[sympy.Symbol], h: Any) -> Any:
        """The modified loss in closed form.

        Args:
          losses: L_0, .., L_(m-1), expressions in `params` and anything else.
          params: the parameters, symbols.
          h: the step, a symbol or number.
        """
        losses = [exact(loss, "losses") for loss in losses]
        require_batches(self, len(losses), "losses")
        mean = sum(losses, sympy.Integer(0)) / len(losses)
        total = sympy.Integer(0)
        for t, c in self.coefficients.items():
            if len(t) == 1:
                total += c * mean
                continue
            over = [mean] if t[0] == FREE else losses
            squares = [sympy.diff(loss, p) ** 2 for loss in over for p in params]
            total += c * exact(h, "h") * sum(squares, sympy.Integer(0)) / len(over)
        return sympy.expand(total)

    def latex(self) -> str:
        """The loss as LaTeX."""
        return self._printed(latex=True)

    def __str__(self) -> str:
        return self._printed(latex=False)

    def _printed(self, latex: bool) -> str:
        terms = [(len(t) - 1, c, contraction(t, latex)) for t, c in self.coefficients.items()]
        return expansion(terms, self.order, latex)

    def __hash__(self) -> int:
        return hash((self.name, self.order, frozenset(self.coefficients.items())))

    def __repr__(self) -> str:
        return f"<modified loss of {self.name}, order {self.order}: {self}>"

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.latex()}$"


class _OfBatches(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def num_batches(self) -> sympy.Expr: ...


def require_batches(eq: _OfBatches, number: int, argument: str) -> None:
    """Raises `ValueError` unless there are as many batches as the equation is for."""
    m = eq.num_batches
    if not m.is_Integer:
        raise ValueError(
            f"the equation of {eq.name} has the open symbol {m}; give it a number: "
            f"eq.subs({{{str(m)!r}: {number}}})"
        )
    if number != m:
        raise ValueError(f"{eq.name}: {argument} must be {m} in number, got {number}")
