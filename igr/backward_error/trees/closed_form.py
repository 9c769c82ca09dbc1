"""Elementary differentials of a sympy loss in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import sympy
from sympy.polys.rings import PolyRing

from igr.backward_error import trees
from igr.backward_error.algebra.taylor import exact
from igr.backward_error.trees.gradient import PLAIN, Gradient
from igr.backward_error.trees.rooted import Tree


class Differentials:
    """The elementary differentials of one loss, each computed once.

    Args:
      loss: E, a sympy expression.
      params: the m symbols it is differentiated by.
      gradient: what g stands for.

    Raises:
      TypeError: if `loss` is not an expression or `params` are not symbols.
      ValueError: if a symbol stands twice in `params`.
    """

    def __init__(
        self, loss: sympy.Expr, params: Sequence[sympy.Symbol], gradient: Gradient = PLAIN
    ):
        self.loss = exact(loss, "loss")
        self.params = tuple(params) if isinstance(params, Sequence) else ()
        if not self.params or not all(isinstance(p, sympy.Symbol) for p in self.params):
            raise TypeError(f"params is a sequence of one or more sympy symbols, got {params!r}")
        if len(set(self.params)) < len(self.params):
            raise ValueError(f"each of params stands once, got {params!r}")
        self._uphill = gradient.on(self.loss, self.params) if gradient.displaced else None
        self.loss = gradient.loss(self.loss, self.params)
        self.field = cache(self._field)

    def _field(self, tree: Tree) -> sympy.Matrix:
        """F(t) over f = -grad E: an m x 1 Matrix."""
        if self._uphill is not None:
            found = [self._contracted(tree, g) for g in self._uphill]
            return sympy.Matrix([-g.xreplace(directions) for g, directions in found])
        contracted, directions = self._contracted(tree, self.loss)
        return sympy.Matrix(
            [-sympy.diff(contracted, p).xreplace(directions) for p in self.params]
        ).applyfunc(self._expanded)

    def _expanded(self, expression: sympy.Expr) -> sympy.Expr:
        """Expanded; as a polynomial where it is one, which is many times faster."""
        symbols = sorted(expression.free_symbols, key=str)
        try:
            return PolyRing(symbols, sympy.QQ).from_expr(expression).as_expr()
        except (ValueError, sympy.CoercionFailed):
            return sympy.expand(expression)

    def scalar(self, tree: Tree) -> sympy.Expr:
        """The derivatives of E contracted over the free tree of `tree`, any rooting of it."""
        contracted, directions = self._contracted(tree, self.loss)
        # The branches carry F over f = -g: one sign for every vertex but the root.
        sign = (-1) ** (trees.order(tree) - 1)
        return sign * contracted.xreplace(directions)

    def _contracted(
        self, tree: Tree, expression: sympy.Expr
    ) -> tuple[sympy.Expr, dict[sympy.Dummy, sympy.Expr]]:
        """E differentiated once along each branch at the root, and what the branches are.

        Placeholders stand for the branches, so that no later derivative acts on them.
        """
        directions: dict[sympy.Dummy, sympy.Expr] = {}
        for branch in tree:
            placeholders = [sympy.Dummy() for _ in self.params]
            directions.update(zip(placeholders, self.field(branch), strict=True))
            expression = sum(
                (
                    v * sympy.diff(expression, p)
                    for p, v in zip(self.params, placeholders, strict=True)
                ),
                sympy.Integer(0),
            )
        return expression, directions
