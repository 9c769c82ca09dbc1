"""Elementary differentials of sympy losses in closed form."""

from __future__ import annotations

from functools import cache
from typing import Any

import sympy
from sympy.polys.rings import PolyRing

from igr.backward_error.trees import rooted
from igr.backward_error.trees.colouring import Losses


class Differentials:
    """The elementary differentials of given losses, each computed once.

    Args:
      losses: what the vertices are derivatives of, from a `Colouring`.
    """

    def __init__(self, losses: Losses):
        self._losses = losses
        self._at = cache(self._value)

    def field(self, t: int, batch: int | None = None) -> sympy.Matrix:
        """The elementary differential F(t) over f = -grad E, a column; a mean over its batches."""
        factor, batches = self._losses.over(t, batch)
        zero = sympy.zeros(len(self._losses.params), 1)
        return factor * sum((self._at(t, k) for k in batches), zero)

    def scalar(self, t: int) -> sympy.Expr:
        """The scalar contraction of E's derivatives over the free tree of `t`."""
        factor, batches = self._losses.over(t, None)
        total = sympy.Integer(0)
        for k in batches:
            loss = self._losses.vertex(rooted.colour(t), k)
            assert isinstance(loss, sympy.Expr)
            contracted, directions = self._contracted([loss], t, k)
            total += contracted[0].xreplace(directions)
        # The branches carry F over f = -g: one sign for every vertex but the root.
        return (-1) ** (rooted.size(t) - 1) * factor * total

    def _value(self, t: int, batch: int | None) -> sympy.Matrix:
        """The elementary differential of a tree whose root stands for this batch, a column."""
        vertex = self._losses.vertex(rooted.colour(t), batch)
        if isinstance(vertex, list):
            contracted, directions = self._contracted(vertex, t, batch)
            return sympy.Matrix([-g.xreplace(directions) for g in contracted])
        (contracted,), directions = self._contracted([vertex], t, batch)
        moved = self._losses.moved(rooted.colour(t))
        return sympy.Matrix(
            [
                _expanded(-sympy.diff(contracted, p).xreplace(directions) if p in moved else 0)
                for p in self._losses.params
            ]
        )

    def _contracted(
        self, expressions: list[sympy.Expr], t: int, batch: int | None
    ) -> tuple[list[sympy.Expr], dict[sympy.Dummy, sympy.Expr]]:
        """Expressions differentiated once along each branch at the root, in placeholders.

        Placeholders stand for the differentials of the branches, so that no later derivative acts
        on them; the second value maps each to what it stands for.
        """
        directions: dict[sympy.Dummy, sympy.Expr] = {}
        params = self._losses.params
        for branch in rooted.children(t):
            held = [sympy.Dummy() for _ in params]
            directions.update(zip(held, self.field(branch, batch), strict=True))
            expressions = [
                sympy.Add(*(v * sympy.diff(e, p) for p, v in zip(params, held, strict=True)))
                for e in expressions
            ]
        return expressions, directions


def _expanded(expression: Any) -> sympy.Expr:
    """The expression expanded, by polynomial arithmetic where possible, which is much faster."""
    expression = sympy.Add(expression, sympy.Integer(0))
    symbols = sorted(expression.free_symbols, key=str)
    try:
        return PolyRing(symbols, sympy.QQ).from_expr(expression).as_expr()
    except (ValueError, sympy.CoercionFailed):
        return sympy.expand(expression)
