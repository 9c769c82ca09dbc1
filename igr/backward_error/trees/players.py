"""Trees of two players: a vertex of colour p stands for the vector field of player p.

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
    """The colouring of a game: a vertex stands for the loss of player 0 or 1."""

    palette: ClassVar[tuple[int, ...]] = (0, 1)
    shape: ClassVar[str] = "a tree of players is (player, *children), players 0 and 1"
    powers: ClassVar[bool] = False

    def no_gradient(self) -> str:
        """The reason why the field of a game is never a gradient."""
        return "each player has a loss of its own, and the field on the pair is not a gradient"

    def representative(self, t: int) -> None:
        """None: no tree of a game belongs to a gradient."""
        del t

    def losses(self, loss: Any, params: Any, name: str) -> Losses:
        """The players' losses A and B as a `Losses`, from the pair of losses and of parameters."""
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
        """The left sides θ' and φ' of the two equations, each with its player."""
        return [(rf"\dot{_LATEX[p]}" if latex else f"{_TEXT[p]}'", p) for p in self.palette]

    def letters(self, tree: Tree, latex: bool) -> Letters:
        """The printed names of a tree's vertices: A_θ, A_θφ, with an index for every derivative."""
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
        """The parameters of the player with this colour."""
        return self._own[colour]


class _Indices(Letters):
    def operator(self, tree: Tree, degree: int) -> str:
        """The player's loss with its derivatives as indices, the player's own parameters first."""
        del degree
        players = [tree[0], *(child[0] for child in tree[1:])]
        if self.latex:
            return f"{_LOSSES[tree[0]]}_{{{' '.join(_LATEX[p] for p in players)}}}"
        return f"{_LOSSES[tree[0]]}_{''.join(_TEXT[p] for p in players)}"
