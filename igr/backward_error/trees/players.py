"""Trees of two players: a vertex of colour p is the field of player p on the pair of params.

On z = (theta, phi), f_0 = (-A_theta, 0) and f_1 = (0, -B_phi). The field of a game is the gradient
of nothing: each player has a loss of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import sympy

from igr.backward_error.algebra.taylor import exact
from igr.backward_error.trees.colouring import Colouring, Letters, Losses, Row, symbols
from igr.backward_error.trees.rooted import Tree

_LOSSES, _TEXT, _LATEX = "AB", "θφ", (r"\theta", r"\phi")


@dataclass(frozen=True)
class Players(Colouring):
    """Two players, 0 and 1."""

    palette: ClassVar[tuple[int, ...]] = (0, 1)
    shape: ClassVar[str] = "a tree of players is (player, *children), players 0 and 1"
    powers: ClassVar[bool] = False

    def no_gradient(self) -> str:
        """Why the field is never a gradient."""
        return "each player has a loss of its own, and the field on the pair is not a gradient"

    def representative(self, t: int) -> None:
        """No tree is in a gradient."""
        del t

    def losses(self, loss: Any, params: Any, name: str) -> Losses:
        """A and B."""
        pair = isinstance(loss, Sequence) and len(loss) == 2
        if not pair or not isinstance(params, Sequence) or len(params) != 2:
            raise TypeError(
                f"{name} has two players: loss must be the pair of their losses and params the "
                f"pair of their parameters, a sequence of symbols each; got {loss!r} and "
                f"{params!r}."
            )
        theta, phi = (symbols(p, f"params[{i}]") for i, p in enumerate(params))
        symbols((*theta, *phi))
        return _PairOfLosses([exact(e, f"loss[{i}]") for i, e in enumerate(loss)], theta, phi)

    def rows(self, latex: bool) -> list[Row]:
        """One equation for each player."""
        return [(rf"\dot{_LATEX[p]}" if latex else f"{_TEXT[p]}'", p) for p in self.palette]

    def letters(self, tree: Tree, latex: bool) -> Letters:
        """A_θ, A_θφ: an index for every derivative."""
        del tree
        return _Indices(latex)


class _PairOfLosses(Losses):
    tidy = staticmethod(sympy.expand)

    def __init__(
        self,
        pair: Sequence[sympy.Expr],
        theta: tuple[sympy.Symbol, ...],
        phi: tuple[sympy.Symbol, ...],
    ):
        super().__init__(pair[0], theta + phi)
        self._pair, self._own = pair, (theta, phi)

    def vertex(self, colour: int, batch: int | None) -> sympy.Expr:
        """The loss of a player."""
        del batch
        return self._pair[colour]

    def moved(self, colour: int) -> Sequence[sympy.Symbol]:
        """The player's own parameters."""
        return self._own[colour]


class _Indices(Letters):
    def operator(self, tree: Tree, degree: int) -> str:
        """The player's loss, differentiated by its own params first."""
        del degree
        players = [tree[0], *(child[0] for child in tree[1:])]
        if self.latex:
            return f"{_LOSSES[tree[0]]}_{{{' '.join(_LATEX[p] for p in players)}}}"
        return f"{_LOSSES[tree[0]]}_{''.join(_TEXT[p] for p in players)}"
