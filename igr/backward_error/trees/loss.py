"""The modified loss of a method, as a sum over free trees.

The field of a method is the gradient of a loss for every E exactly when its weight
b(t) = c(t) sigma(t) is the same for all rootings of each free tree; the loss then carries b/|Aut|
for each free tree. For gradient descent this gives E + h/4 |grad E|^2 (Barrett and Dherin 2021,
Theorem 3.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sympy

from igr.backward_error.algebra.taylor import exact
from igr.backward_error.trees import printing, rooted
from igr.backward_error.trees.closed_form import Differentials
from igr.backward_error.trees.colouring import Colouring
from igr.backward_error.trees.one_loss import PLAIN_GRADIENT
from igr.backward_error.trees.powers import by_power
from igr.backward_error.trees.rooted import Tree
from igr.shown import cut


class NotAGradientError(ValueError):
    """Raised when a modified loss is asked for but the field is not a gradient.

    Attributes:
      order: the first power of h at which the field is not a gradient.
      tree: a tree whose weight differs from that of the same free tree rooted elsewhere.
    """

    def __init__(self, message: str, order: int, tree: Tree):
        super().__init__(message)
        self.order = order
        self.tree = tree

    def __reduce__(self):
        return type(self), (*self.args, self.order, self.tree)


@dataclass(frozen=True, repr=False)
class ModifiedLoss:
    """The modified loss, whose gradient flow a method follows, as a sum over free trees.

    Attributes:
      name: the method.
      order: the highest power of h kept.
      weights: b of each free tree, by its representative rooting.
      domain: the sympy field the weights are elements of.
      colouring: what the vertices stand for; with weight decay c, E is E + c |theta|^2/2.
    """

    name: str
    order: int
    weights: Mapping[int, Any]
    domain: Any
    colouring: Colouring = PLAIN_GRADIENT

    @cached_property
    def coefficients(self) -> dict[Tree, sympy.Expr]:
        """For each free tree of n vertices, the coefficient of h^(n-1) times its contraction.

        A vertex of degree k is the k-th derivative tensor of E, an edge a summed index: one edge
        is |g|^2, the path of three vertices g'Hg. The gradient of the contraction over a free
        tree is the sum over its vertices of the differential rooted there, so that a common
        weight b integrates to b/|Aut|, and the step from f = -g to g gives the sign.
        """
        return {
            rooted.as_tuple(t): (-1) ** (rooted.size(t) - 1)
            * self.domain.to_sympy(b)
            / rooted.free_symmetry(t)
            for t, b in self.weights.items()
        }

    def on(self, loss: Any, params: Any, h: Any) -> sympy.Expr:
        """The modified loss in closed form, a sympy expression, each power of h simplified alone.

        Args:
          loss: E, a sympy expression; for SGD in epochs the losses of the batches.
          params: the parameters, symbols.
          h: the step, a symbol or number.

        E (1 + h/2 (a^2 + b^2) x^2), equation A.27 of Barrett and Dherin (2021):

        >>> from igr.backward_error import methods, modified_equation
        >>> a, b, x, y, h = sympy.symbols("a b x y h")
        >>> E = (y - a * b * x) ** 2 / 2
        >>> modified = modified_equation(methods.gradient_descent(), 1).modified_loss()
        >>> sympy.simplify(modified.on(E, (a, b), h) / E)
        h*x**2*(a**2 + b**2)/2 + 1
        """
        at = Differentials(self.colouring.losses(loss, params, self.name))
        h = exact(h, "h")
        total = sympy.Integer(0)
        for power, terms in by_power(self.coefficients):
            parts = (c * at.scalar(rooted.intern(tree)) for tree, c in terms)
            total += h**power * sympy.factor(sympy.Add(*parts))
        return total

    def latex(self) -> str:
        """The modified loss as LaTeX."""
        return printing.loss(self.coefficients, self.order, True, self.colouring)

    def __str__(self) -> str:
        return printing.loss(self.coefficients, self.order, False, self.colouring)

    def __hash__(self) -> int:
        return hash((self.name, self.order, frozenset(self.weights.items())))

    def __reduce__(self):
        return restored, pickled(self)

    def __repr__(self) -> str:
        return f"<modified loss of {self.name}, order {self.order}: {cut(str(self), 400)}>"

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.latex()}$"


def pickled(series: Any) -> tuple[Any, ...]:
    """The arguments from which `restored` rebuilds an equation or a loss in another process.

    Trees become nested tuples, because their integers differ from process to process, and weights
    become expressions, because sympy does not pickle every field of rational functions.
    """
    weights = {rooted.as_tuple(t): series.domain.to_sympy(b) for t, b in series.weights.items()}
    domain = series.domain
    if domain.is_FractionField:
        domain = domain.domain, domain.symbols
    return type(series), series.name, series.order, weights, domain, series.colouring


def restored(
    kind: type,
    name: str,
    order: int,
    weights: Mapping[Tree, sympy.Expr],
    domain: Any,
    colouring: Colouring,
) -> Any:
    """Rebuilds an equation or a loss from the values that `pickled` returned."""
    if isinstance(domain, tuple):
        domain = domain[0].frac_field(*domain[1])
    kept = {rooted.intern(tree): domain.from_sympy(b) for tree, b in weights.items()}
    return kind(name, order, kept, domain, colouring)
