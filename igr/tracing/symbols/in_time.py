"""Rewrites functions of the step number n as functions of the time t = (n + 1) h."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import sympy
from sympy.core.relational import Relational

from igr.backward_error.terms.algebra import T
from igr.tracing.symbols.on_steps import changes
from igr.tracing.symbols.values import RATE, STEPS, fading_power
from igr.tracing.unreadable import UnreadableOptimizerError

CLOCK = sympy.Symbol("clock", positive=True)  # 1/h, the steps in a unit of time


def in_time(
    expression: sympy.Expr,
    forgotten: Iterable[sympy.Expr],
    remembered: Mapping[sympy.Expr, str],
    rates: dict[str, sympy.Expr],
    dropped: set[sympy.Expr] | None = None,
) -> sympy.Expr:
    """The expression with n, and h where it stands by itself, written in t = (n + 1) h and 1/h.

    Args:
      expression: an expression in the number n of steps done before this one, and in h.
      forgotten: the decay rates b of eliminated memories, for which b^n becomes 0; not where
        nothing would be left, as of a schedule that decays by the same b.
      remembered: decay rate b -> name of a kept memory, for which b^(n + 1) becomes e^(-lambda t).
      rates: is given an entry name -> r for each new name that stands for r/h.
      dropped: is given each b whose b^n was taken to be 0.

    Raises:
      UnreadableOptimizerError: where a schedule goes up and down for ever, as one with restarts
        does.
    """
    if not expression.has(STEPS, RATE):
        return expression
    forgotten = set(forgotten)

    def power(base: sympy.Expr, exponent: sympy.Expr) -> sympy.Expr:
        slope = sympy.diff(exponent, STEPS)
        fades = base.is_number and bool(base > 0) and bool(base < 1)
        if not (fades and slope.is_number and slope.is_positive):
            return base**exponent
        if (base, slope) in gone:
            return sympy.Integer(0)
        names = [n for n, r in rates.items() if r == -sympy.log(base)]
        free = f"lambda_{remembered.get(base, len(rates))}"
        name = names[0] if names else free
        rates[name] = -sympy.log(base)
        rest = sympy.expand(exponent - slope * (STEPS + 1))
        return base**rest * sympy.exp(-slope * sympy.Symbol(name, positive=True) * T)

    found = in_pieces(expression)
    gone = {(b, sympy.Integer(1)) for b in forgotten if b not in remembered}
    of_steps = [p for p in found.atoms(sympy.Pow) if p.exp.has(STEPS)]
    if any(_all_of(found, [p for p in of_steps if fading_power(p) == b]) for b, _ in gone):
        gone = set()
    if dropped is not None:
        dropped |= {b for p in of_steps if ((b := fading_power(p)), sympy.Integer(1)) in gone}
    found = found.xreplace({p: power(p.base, p.exp) for p in of_steps})
    if found.has(STEPS, RATE):
        rates["clock"] = sympy.Integer(1)
        found = found.xreplace({STEPS: T * CLOCK - 1, RATE: 1 / CLOCK})
        found = _in_powers_of_the_step(found)
    return found


def _all_of(expression: sympy.Expr, powers: list[Any]) -> bool:
    """Whether an expression, or one of its pieces, is a sum of multiples of some of the powers."""
    if not powers:
        return False
    nothing = dict.fromkeys(powers, sympy.Integer(0))
    pieces = [e for p in expression.atoms(sympy.Piecewise) for e, _ in p.args if e != 0]
    return any(e.xreplace(nothing) == 0 for e in [expression, *pieces])


def _in_powers_of_the_step(expression: sympy.Expr) -> sympy.Expr:
    """The expression divided out in powers of 1/h, so that large terms cancel exactly."""
    if expression.has(sympy.Piecewise) or not expression.has(CLOCK):
        return expression
    try:
        above, below = sympy.fraction(sympy.cancel(expression))
        top, bottom = sympy.Poly(above, CLOCK), sympy.Poly(below, CLOCK)
    except sympy.PolynomialError:
        return expression
    if top.degree() > bottom.degree():
        return expression
    terms = [sympy.cancel(c * CLOCK**k / below) for (k,), c in top.terms()]
    return sympy.Add(*terms)


def in_pieces(expression: sympy.Expr) -> sympy.Expr:
    """The expression with each choice by the step as a `Piecewise` over intervals of steps."""
    nested = [p for p in expression.atoms(sympy.Piecewise) if p.has(STEPS)]
    inner = {q for p in nested for e, _ in p.args for q in e.atoms(sympy.Piecewise)}
    inner |= {q for p in nested for _, c in p.args for q in c.atoms(sympy.Piecewise)}
    return expression.xreplace({p: _flat(p) for p in nested if p not in inner})


def _flat(piecewise: sympy.Expr) -> sympy.Expr:
    conditions = {c for c in piecewise.atoms(Relational) if c.free_symbols == {STEPS}}
    cuts: set[int] = set()
    for condition in conditions:
        found = changes(condition)
        if found is None:
            raise UnreadableOptimizerError(
                "a schedule changes its formula more often than can be followed: "
                f"{condition}. Give it as a smooth function of the step, or run its pieces one "
                "by one"
            )
        cuts |= set(found)
    starts = [0, *sorted(cuts)]
    pieces = []
    for start in starts:
        at = sympy.Integer(start)

        def chosen(e: Any, at: sympy.Integer = at) -> Any:
            while isinstance(e, sympy.Piecewise):
                e = next(x for x, c in e.args if c == True or bool(c.subs(STEPS, at)))  # noqa: E712
            if isinstance(e, sympy.Basic) and e.has(sympy.Piecewise):
                e = e.xreplace({p: chosen(p) for p in e.atoms(sympy.Piecewise) if p.has(STEPS)})
            return e

        pieces.append(chosen(piecewise))
    joined: list[tuple[sympy.Expr, Any]] = []
    for piece, end in zip(pieces, [*starts[1:], None], strict=True):
        if joined and joined[-1][0] == piece:
            joined.pop()
        joined.append((piece, sympy.true if end is None else sympy.Lt(STEPS, end)))
    if len(joined) == 1:
        return joined[0][0]
    # What stands before every piece is taken out: the gradient or its average, as a rule.
    parts = [{x for x in sympy.Mul.make_args(e) if x.is_Symbol and x != RATE} for e, _ in joined]
    common = sympy.Mul(*sorted(set.intersection(*parts), key=str))
    return common * sympy.Piecewise(*((e / common, c) for e, c in joined), evaluate=False)
