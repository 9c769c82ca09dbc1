"""Two players who each descend on a loss of their own, simultaneously or in turns.

Player 1 moves theta down A(theta, phi), player 2 moves phi down B(theta, phi); a zero-sum game has
B = -A. On the pair z = (theta, phi) let f_1 = (-r_1 A_theta, 0) and f_2 = (0, -r_2 B_phi), r the
players' learning rates over h. Moving at once is Euler's method on f_1 + f_2; moving in turns
composes Euler steps of f_1 and f_2,

    z <- z + h f_1(z),    z <- z + h f_2(z),

so that player 2 answers what player 1 has just done. Either is a step with a series over trees
whose vertices carry the players, and its logarithm is the field that is followed. Its h^1 is the
drift of Rosca, Wu, Dherin and Barrett (2021), "Discretization drift in two-player games".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sympy

from igr.backward_error.algebra.naming import Name
from igr.backward_error.algebra.orders import check_order
from igr.backward_error.algebra.taylor import exact, fraction_field
from igr.backward_error.methods.memoryless import Memoryless
from igr.backward_error.trees import colours
from igr.backward_error.trees.equation import ModifiedEquation
from igr.backward_error.trees.players import Players
from igr.backward_error.trees.series import logarithm, runge_kutta_series
from igr.checks import Count


@dataclass(frozen=True)
class GameMethod(Memoryless):
    """Gradient descent of two players, who step in a given order in each round of time h.

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
        """The free symbols of the learning rates, sorted by name."""
        return tuple(sorted(self.ratios[0].free_symbols | self.ratios[1].free_symbols, key=str))

    def equation(self, order: Count) -> ModifiedEquation:
        """The modified equation up to h^order: the logarithm of the map of one round."""
        order = check_order(order)
        # A step of a turn is a stage that sees the stages before it; at once, none sees another.
        players, one, none = self.turns or (0, 1), sympy.QQ(1), sympy.QQ(0)
        s = len(players)
        A = [[one if j < i and self.turns else none for j in range(s)] for i in range(s)]
        step = runge_kutta_series(A, [one] * s, order + 1, players)
        field = logarithm(step, order + 1)
        rates = [sympy.Mul(*(self.ratios[p] for p in colours(t))) for t in field]
        weights = [sympy.QQ.to_sympy(b) * r for b, r in zip(field.values(), rates, strict=True)]
        domain, elements = fraction_field(weights)
        by_tree = dict(zip(field, elements, strict=True))
        return ModifiedEquation(self.name, order, by_tree, domain, Players())


def simultaneous(ratios: Sequence[Any] = (1, 1)) -> GameMethod:
    """Simultaneous descent: both players step at once, each on its own loss.

    Args:
      ratios: the learning rate of each player over h: positive numbers or sympy symbols.

    Returns:
      A method for `igr.modified_equation`, which reads the pair of losses and of parameters.

    Raises:
      ValueError: if `ratios` are not two positive numbers or symbols.

    On the bilinear zero-sum game A = x y the drift lets |z| grow at the rate h/2, so that the
    players spiral away from the equilibrium:

    >>> from igr.backward_error import modified_equation
    >>> x, y, h = sympy.symbols("x y h")
    >>> modified_equation(simultaneous(), 1).on((x * y, -x * y), ((x,), (y,)), h)
    Matrix([
    [h*x/2 - y],
    [h*y/2 + x]])
    """
    return GameMethod(Name("simultaneous descent", _shown(ratios)), _ratios(ratios))


def alternating(ratios: Sequence[Any] = (1, 1), steps: Sequence[int] = (1, 1)) -> GameMethod:
    """Alternating descent: the players step in turns, the second after the first has moved.

    Args:
      ratios: the learning rate of each player over h: positive numbers or sympy symbols.
      steps: how many steps each player takes in its turn. A round takes time h.

    Returns:
      A method for `igr.modified_equation`.

    Raises:
      ValueError: if `ratios` are not two positive numbers or symbols, or `steps` not two positive
        integers.

    On the bilinear game A = x y the drift turns the circles of the flow into ellipses:

    >>> from igr.backward_error import modified_equation
    >>> print(modified_equation(alternating(), 1))
    θ' = -A_θ - h (1/2 A_θθ A_θ + 1/2 A_θφ B_φ) + O(h²)
    φ' = -B_φ + h (1/2 B_φθ A_θ - 1/2 B_φφ B_φ) + O(h²)
    """
    counts = tuple(steps)
    if len(counts) != 2 or not all(
        isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in counts
    ):
        raise ValueError(f"steps must be a pair of integers of at least 1; got {steps!r}.")
    settings = _shown(ratios)
    if counts != (1, 1):
        settings["steps"] = sympy.Tuple(*counts)
    name = Name("alternating descent", settings)
    return GameMethod(name, _ratios(ratios), (0,) * counts[0] + (1,) * counts[1])


def _ratios(ratios: Sequence[Any]) -> tuple[sympy.Expr, sympy.Expr]:
    found = tuple(exact(r, "ratios") for r in ratios)
    if len(found) != 2 or any(r.is_number and not (r.is_real and r > 0) for r in found):
        raise ValueError(
            f"ratios must be a pair of positive numbers or sympy symbols; got {ratios!r}."
        )
    return found


def _shown(ratios: Sequence[Any]) -> dict[str, Any]:
    found = _ratios(ratios)
    return {} if found == (1, 1) else {"ratios": sympy.Tuple(*found)}
