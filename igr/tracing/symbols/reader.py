"""How a program is read: what is assumed of symbols, and what is done at a kink."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sympy

from igr.backward_error.algebra.taylor import exact
from igr.tracing.program import Atom, Variable
from igr.tracing.symbols.on_steps import EARLY, changes, settled
from igr.tracing.symbols.values import RATE, STEPS
from igr.tracing.unreadable import KinkError

_PLAIN = sympy.Rational(1, 100)  # a learning rate


class Reader:
    """How a program is read: what is assumed of symbols, and what is done at a kink.

    Args:
      smooth: x/sqrt(x^2 + smooth) is read for the sign of x, and so in maxima and conditions; with
        None a kink is an error.
      nonnegative: symbols known not to be negative, as averages of squares are.
      early: a condition on the step that does not change after this many steps is read as its
        final truth.
    """

    def __init__(
        self,
        smooth: Any | None,
        nonnegative: Iterable[sympy.Symbol] = (),
        early: int = EARLY,
    ):
        self.early = early
        self.smooth = None if smooth is None else exact(smooth, "smooth")
        self.smoothed: set[str] = set()
        self.smoothed_at: set[Variable] = set()  # the applications that were
        self.at: Variable | None = None
        self.chosen: dict[Variable, Atom] = {}  # what a decided choice is the same as
        self.settled = 0  # the step from which conditions on the first steps no longer hold
        self.turns: set[int] = set()  # the steps at which conditions on the step turn
        self.within = 0  # of how many branches a program is read
        self.powers: dict[Variable, sympy.Expr] = {}  # b^(n + k), by what is made of it first
        nonnegative = frozenset(nonnegative)
        self._real: dict[sympy.Symbol, sympy.Dummy] = {}
        self._nonnegative = nonnegative

    def assumed(self, x: sympy.Expr) -> sympy.Expr:
        """The expression in symbols that sympy knows to be real, or nonnegative."""
        for s in x.free_symbols - set(self._real):
            known = {"nonnegative": True} if s in self._nonnegative else {"real": True}
            self._real[s] = sympy.Dummy(s.name, **(s._assumptions_orig or known))
        return x.xreplace({s: self._real[s] for s in x.free_symbols})

    def sign(self, x: sympy.Expr, what: str) -> sympy.Expr:
        """The sign of x: a number if it is known, otherwise its smoothed form.

        Raises:
          KinkError: if the sign is not known and nothing is to be smoothed.
        """
        known = self.assumed(x)
        if known.is_nonnegative:
            return sympy.Integer(1)  # zero only at single points
        if known.is_nonpositive:
            return sympy.Integer(-1)
        if self.smooth is None:
            raise KinkError(
                f"its rule has a jump or a kink ({what}), where no expansion holds. Ask for it to "
                "be smoothed: from_optax(..., smooth=1e-2) reads x/sqrt(x² + smooth) for the sign "
                "of x, and follows the optimizer so changed"
            )
        self.smoothed.add(what)
        if self.at is not None:
            self.smoothed_at.add(self.at)
        return x / sympy.sqrt(x**2 + self.smooth)

    def absolute(self, x: sympy.Expr, what: str = "abs") -> sympy.Expr:
        """The absolute value |x|, or its smoothed form sqrt(x^2 + smooth)."""
        sign = self.sign(x, what)
        return sign * x if sign.is_number else sympy.sqrt(x**2 + self.smooth)

    def settle(self, condition: Any) -> Any:
        """The final truth of a condition that changes only in the first steps, else itself."""
        self.note(condition)
        found = settled(condition)
        if found is None:
            return condition
        truth, since = found
        if since > self.early:
            return condition
        self.settled = max(self.settled, since)
        return truth

    def note(self, condition: Any) -> None:
        """Records the steps at which a condition on the step changes, at a fixed learning rate."""
        if isinstance(condition, sympy.Basic) and condition.has(RATE):
            condition = condition.subs(RATE, _PLAIN)
        if getattr(condition, "free_symbols", None) == {STEPS}:
            self.turns.update(changes(condition) or ())
