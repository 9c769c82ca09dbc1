"""Elementary differentials over batches, of sympy losses in closed form."""

from __future__ import annotations

from collections.abc import Sequence

import sympy

from igr.backward_error.trees.batches import FREE, MARKED, BatchTree, marks


class SumsOverBatches:
    """Elementary differentials of sympy losses, summed over batches in the order they stand."""

    def __init__(self, losses: Sequence[sympy.Expr], params: Sequence[sympy.Symbol], ordered: bool):
        self._losses, self._params, self._ordered = losses, tuple(params), ordered
        self._at: dict[tuple[BatchTree, int], sympy.Matrix] = {}

    def total(self, tree: BatchTree) -> sympy.Matrix:
        """The sum over all batches that the marks of the tree allow."""
        if not self._ordered and MARKED not in marks(tree):
            return self._value(tree, 0)
        return self._sum(tree, len(self._losses))

    def _sum(self, tree: BatchTree, before: int) -> sympy.Matrix:
        values = (self._value(tree, k) for k in range(before))
        return sum(values, sympy.zeros(len(self._params), 1))

    def _value(self, tree: BatchTree, k: int) -> sympy.Matrix:
        """The tree with batch k at its root (ordered), or as the one that is shared."""
        if (tree, k) not in self._at:
            mark, *below = tree
            whole = not self._ordered and mark == FREE
            loss = sum(self._losses, sympy.Integer(0)) if whole else self._losses[k]
            self._at[tree, k] = self._differentiated(loss, [self._below(c, k) for c in below])
        return self._at[tree, k]

    def _below(self, child: BatchTree, k: int) -> sympy.Matrix:
        if not self._ordered:
            return self._value(child, k)
        return self._sum(child, k if child[0] == MARKED else len(self._losses))

    def _differentiated(self, loss: sympy.Expr, directions: list[sympy.Matrix]) -> sympy.Matrix:
        """-grad of the loss, differentiated along each direction held fixed."""
        known: dict[sympy.Dummy, sympy.Expr] = {}
        for direction in directions:
            held = [sympy.Dummy() for _ in self._params]
            known.update(zip(held, direction, strict=True))
            loss = sympy.Add(
                *(v * sympy.diff(loss, p) for p, v in zip(self._params, held, strict=True))
            )
        gradient = [-sympy.diff(loss, p).xreplace(known) for p in self._params]
        return sympy.Matrix(gradient).applyfunc(sympy.expand)
