"""Two players who descend on losses of their own, at once or in turns.

Player 1 moves theta down A(theta, phi), player 2 moves phi down B(theta, phi); a zero-sum game has
B = -A. On the pair z = (theta, phi) let f_1 = (-r_1 A_theta, 0) and f_2 = (0, -r_2 B_phi), r the
players' learning rates over h. Moving at once is Euler's method on f_1 + f_2; moving in turns
composes Euler steps of f_1 and f_2,

    z <- z + h f_1(z),    z <- z + h f_2(z),

so that player 2 answers what player 1 has just done. Either is a step with a series over trees
whose vertices carry the players, and its logarithm is the field that is followed. Its h^1 is the
drift of Rosca, Wu, Dherin and Barrett (2021), "Discretization drift in two-player games".

A tree is `(player, *children)` with players 0 and 1, and F(t) the derivative of the root's field
along the differentials of the children.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import prod
from typing import Any, NoReturn

import sympy

from igr.backward_error.algebra.naming import Name, named, numbers_for
from igr.backward_error.algebra.orders import check_order
from igr.backward_error.algebra.taylor import exact
from igr.backward_error.protocols import Memory
from igr.backward_error.trees import printing
from igr.backward_error.trees.batches import BatchTree, canonical, logarithm, order, symmetry
from igr.backward_error.trees.loss import NotAGradientError

PlayerTree = BatchTree  # (player, *children)
_LETTERS = (("A", "θ", r"\theta"), ("B", "φ", r"\phi"))


@dataclass(frozen=True)
class GameMethod:
    """Two players and the order of their steps in a round of time h.

    Attributes:
      name: how the method calls itself in print and in errors.
      ratios: r, the learning rate of each player over h.
      turns: the players in the order of their steps; empty if both move at once.
    """

    name: str
    ratios: tuple[sympy.Expr, sympy.Expr]
    turns: tuple[int, ...] = ()

    @property
    def parameters(self) -> tuple[sympy.Symbol, ...]:
        """The symbols left open."""
        return tuple(sorted(self.ratios[0].free_symbols | self.ratios[1].free_symbols, key=str))

    @property
    def kept(self) -> tuple[str, ...]:
        """No state stays a variable of the flow."""
        return ()

    def equation(self, order: int) -> GameEquation:
        """The modified equation, to h^order."""
        return game_equation(self, check_order(order))

    def memory(self) -> Memory:
        """None of gradients."""
        return Memory()

    def response(self) -> None:
        """None: the two players have no common quadratic."""
        return None


def simultaneous(ratios: Sequence[Any] = (1, 1)) -> GameMethod:
    """Both players step at once, each down its own loss where both stood.

    Args:
      ratios: the learning rate of each player over h: positive numbers or sympy symbols.

    In a zero-sum game the drift drives the players apart; on the bilinear game A = x y it is the
    growth of |z| by h/2 in a unit of time:

    >>> from igr.backward_error import modified_equation
    >>> x, y, h = sympy.symbols("x y h")
    >>> modified_equation(simultaneous(), 1).on((x * y, -x * y), ((x,), (y,)), h)
    Matrix([
    [h*x/2 - y],
    [h*y/2 + x]])
    """
    return GameMethod(Name("simultaneous descent", _shown(ratios)), _ratios(ratios))


def alternating(ratios: Sequence[Any] = (1, 1), steps: Sequence[int] = (1, 1)) -> GameMethod:
    """The players take turns: the second steps where the first has moved to.

    Args:
      ratios: the learning rate of each player over h: positive numbers or sympy symbols.
      steps: how many steps each player takes in its turn. A round takes time h.

    On the bilinear game the drift turns the circles into ellipses, and nothing grows:

    >>> from igr.backward_error import modified_equation
    >>> print(modified_equation(alternating(), 1))
    θ' = -A_θ - h (1/2 A_θθ A_θ + 1/2 A_θφ B_φ) + O(h²)
    φ' = -B_φ + h (1/2 B_φθ A_θ - 1/2 B_φφ B_φ) + O(h²)
    """
    counts = tuple(steps)
    if len(counts) != 2 or not all(
        isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in counts
    ):
        raise ValueError(f"steps is a pair of integers of at least 1, got {steps!r}")
    settings = _shown(ratios)
    if counts != (1, 1):
        settings["steps"] = sympy.Tuple(*counts)
    name = Name("alternating descent", settings)
    return GameMethod(name, _ratios(ratios), (0,) * counts[0] + (1,) * counts[1])


@dataclass(frozen=True, repr=False)
class GameEquation:
    """(theta, phi)' = sum_t h^(|t|-1) c(t) F(t) over trees of players.

    Attributes:
      name: the method.
      order: the highest power of h kept.
      coefficients: c(t) over f_1 = (-A_theta, 0) and f_2 = (0, -B_phi), learning rates included.
    """

    name: str
    order: int
    coefficients: Mapping[PlayerTree, sympy.Expr]

    def coefficient(self, tree: PlayerTree) -> sympy.Expr:
        """c(t) of a tree `(player, *children)`, players 0 and 1.

        Raises:
          ValueError: if the tree has more vertices than the equation keeps.
        """
        t = canonical(tree)
        if order(t) > self.order + 1:
            raise ValueError(
                f"the tree {tree} belongs to h^{order(t) - 1}, beyond the order {self.order} of "
                "this equation: derive it to a higher order"
            )
        return self.coefficients.get(t, sympy.Integer(0))

    @property
    def parameters(self) -> tuple[sympy.Symbol, ...]:
        """The symbols left open."""
        free = set().union(*(c.free_symbols for c in self.coefficients.values()))
        return tuple(sorted(free, key=str))

    def subs(self, values: Mapping[Any, Any]) -> GameEquation:
        """The equation with numbers, or other expressions, for the method's symbols."""
        found = numbers_for(self.parameters, values)
        put = {t: c.subs(found) for t, c in self.coefficients.items()}
        return GameEquation(named(self.name).subs(found), self.order, put)

    def truncate(self, order_: int) -> GameEquation:
        """The same equation with fewer powers of h."""
        if not 0 <= order_ <= self.order:
            raise ValueError(f"order is from 0 to {self.order}, that of the equation; got {order_}")
        kept = {t: c for t, c in self.coefficients.items() if order(t) <= order_ + 1}
        return GameEquation(self.name, order_, kept)

    def on(
        self,
        losses: Sequence[sympy.Expr],
        params: Sequence[Sequence[sympy.Symbol]],
        h: Any,
    ) -> sympy.Matrix:
        """The field in closed form, of theta's parameters first.

        Args:
          losses: A and B, expressions in both players' parameters.
          params: theta and phi, a sequence of symbols each.
          h: the step.
        """
        a, b = (exact(loss, "losses") for loss in losses)
        theta, phi = (tuple(p) for p in params)
        z = theta + phi
        fields = (
            [-sympy.diff(a, p) for p in theta] + [sympy.Integer(0)] * len(phi),
            [sympy.Integer(0)] * len(theta) + [-sympy.diff(b, p) for p in phi],
        )

        @cache
        def differential(tree: PlayerTree) -> tuple[sympy.Expr, ...]:
            values, held = fields[tree[0]], {}
            for child in tree[1:]:
                dummies = [sympy.Dummy() for _ in z]
                held.update(zip(dummies, differential(child), strict=True))
                values = [
                    sympy.Add(*(d * sympy.diff(v, p) for d, p in zip(dummies, z, strict=True)))
                    for v in values
                ]
            return tuple(v.xreplace(held) for v in values)

        step = exact(h, "h")
        total = sympy.zeros(len(z), 1)
        for t, c in self.coefficients.items():
            total += step ** (order(t) - 1) * c * sympy.Matrix(differential(t))
        return total.applyfunc(sympy.expand)

    def modified_loss(self, order_: int | None = None) -> NoReturn:
        """Raises: two players do not follow one loss.

        Raises:
          NotAGradientError: always.
        """
        raise NotAGradientError(
            f"{self.name} follows no modified loss: each player has a loss of its own, and the "
            "field on the pair is not a gradient. It is compiled by igr.vector_field",
            0,
            (),
        )

    def latex(self) -> str:
        """Both players' equations as LaTeX, an index for each derivative."""
        rows = r" \\ ".join(self._row(player, True) for player in (0, 1))
        return rf"\begin{{aligned}} {rows} \end{{aligned}}"

    def __str__(self) -> str:
        return "\n".join(self._row(player, False) for player in (0, 1))

    def __repr__(self) -> str:
        return f"<modified equation of {self.name}, order {self.order}>"

    def __hash__(self) -> int:
        return hash((self.name, self.order, frozenset(self.coefficients.items())))

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.latex()}$"

    def _row(self, player: int, latex: bool) -> str:
        terms = [
            (order(t) - 1, (-1) ** order(t) * c, _differential(t, latex))
            for t, c in self.coefficients.items()
            if t[0] == player
        ]
        _, letter, tex = _LETTERS[player]
        left = rf"\dot{tex}" if latex else f"{letter}'"
        return f"{left} = {printing.expansion(terms, self.order, latex)}"


def game_equation(method: GameMethod, order_: int) -> GameEquation:
    """The logarithm of a round, by trees of players."""
    vertices = order_ + 1
    found = logarithm(dict(_round(method.turns, vertices)), vertices)
    coefficients = {
        t: sympy.Rational(c.numerator, c.denominator)
        * sympy.Mul(*(method.ratios[player] for player in _players(t)))
        for t, c in found.items()
    }
    return GameEquation(method.name, order_, coefficients)


def _round(turns: tuple[int, ...], vertices: int) -> Iterator[tuple[PlayerTree, Any]]:
    """The trees of (z_after - z)/h, over f_1 and f_2.

    Each step of a turn is a stage of a Runge-Kutta method that sees the stages before it, so that
    a tree counts the ways to put its vertices on stages of their players, decreasing from the root.
    """
    if not turns:
        yield from (((player,), Fraction(1)) for player in (0, 1))
        return

    @cache
    def ways(tree: PlayerTree, stage: int) -> int:
        if turns[stage] != tree[0]:
            return 0
        return prod(sum(ways(child, j) for j in range(stage)) for child in tree[1:])

    for t in _trees(vertices):
        count = sum(ways(t, stage) for stage in range(len(turns)))
        if count:
            yield t, Fraction(count, symmetry(t))


def _trees(vertices: int) -> list[PlayerTree]:
    """All trees of players with at most so many vertices."""
    by_size: list[set[PlayerTree]] = [set(), {(0,), (1,)}]
    for n in range(2, vertices + 1):
        larger = set()
        for k in range(1, n):
            for trunk in by_size[n - k]:
                for branch in by_size[k]:
                    larger.add(canonical((*trunk, branch)))
        by_size.append(larger)
    return sorted(set().union(*by_size), key=lambda t: (order(t), t))


def _players(tree: PlayerTree) -> Iterator[int]:
    yield tree[0]
    for child in tree[1:]:
        yield from _players(child)


def _differential(tree: PlayerTree, latex: bool) -> str:
    """A_θ, A_θφ B_φ, A_θφφ[B_φ, B_φ]: an index for every derivative, the root's own first."""
    loss = _LETTERS[tree[0]][0]
    letters = [
        _LETTERS[player][2 if latex else 1] for player in (tree[0], *(c[0] for c in tree[1:]))
    ]
    name = f"{loss}_{{{' '.join(letters)}}}" if latex else f"{loss}_{''.join(letters)}"
    below = [_differential(child, latex) for child in tree[1:]]
    if len(below) < 2:
        return " ".join([name, *below])
    return f"{name}[{', '.join(below)}]"


def _ratios(ratios: Sequence[Any]) -> tuple[sympy.Expr, sympy.Expr]:
    found = tuple(exact(r, "ratios") for r in ratios)
    if len(found) != 2 or any(r.is_number and not (r.is_real and r > 0) for r in found):
        raise ValueError(f"ratios is a pair of positive numbers or sympy symbols, got {ratios!r}")
    return found


def _shown(ratios: Sequence[Any]) -> dict[str, Any]:
    found = _ratios(ratios)
    return {} if found == (1, 1) else {"ratios": sympy.Tuple(*found)}
