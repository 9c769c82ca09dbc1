"""Describes what an optimizer does to one element: its channels, kept states and rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import sympy

from igr.backward_error.algebra.taylor import Z
from igr.checks import Number
from igr.tracing.states import LeafReading, before
from igr.tracing.symbols.in_time import CLOCK, in_time
from igr.tracing.symbols.values import RATE, Mixed, number
from igr.tracing.unreadable import UnreadableOptimizerError

LONG = sympy.Rational(95, 100)  # memories that fade more slowly are kept
_BACK = sympy.exp(-Z)


@dataclass(frozen=True)
class Memory:
    """One state of an optimizer, described as a memory.

    Attributes:
      of: phi, the expression that is remembered. That of a kept state may read the state's old
        value by its own name.
      fading: b of s <- b s + .., None where the state is no linear memory.
      transfer: the transfer function of an eliminated state, None of a kept one.
      rate: r of y <- y + r (phi - y) for a kept state; None for y <- y + h phi.
      init: the state before the first step.
      why: the reason why it is kept.
    """

    of: sympy.Expr
    fading: sympy.Expr | None
    transfer: sympy.Expr | None
    rate: sympy.Expr | None = None
    init: Any = None
    why: str = ""

    @property
    def kept(self) -> bool:
        """Whether the state is kept as a variable of the flow."""
        return self.transfer is None


@dataclass(frozen=True)
class Description:
    """What an optimizer does to one element: its memories in order of update, and its rule.

    Attributes:
      rule: Psi, in the names of the memories, `g`, `theta`, `t` and the rates. `name_before` is a
        kept state before its update.
      memories: each state's memory by name.
      rates: name -> r: the name stands for r/h.
      dropped: the decay rates b of eliminated memories whose b^n was taken to be 0.
    """

    rule: sympy.Expr
    memories: dict[str, Memory]
    rates: dict[str, sympy.Expr]
    dropped: frozenset[sympy.Expr] = frozenset()

    @property
    def kept(self) -> tuple[str, ...]:
        """The names of the states kept as variables of the flow."""
        return tuple(n for n, m in self.memories.items() if m.kept)


class CoupledError(Exception):
    """Raised where the update of an element of params depends on others; the message says how."""


def describe(leaf: LeafReading, keep: Iterable[str] | None, step: Number | None) -> Description:
    """Describes a leaf's states as memories, kept or eliminated, and its update as a rule.

    Args:
      leaf: what was read of the optimizer on this leaf.
      keep: the names of the states to keep; if None those that fade slowly.
      step: the learning rate, where it was a number.

    Raises:
      CoupledError: if the update of an element depends on other elements.
      UnreadableOptimizerError: if a state cannot be described.
    """
    update = _expression(leaf.update)
    updates = _needed(leaf, update)
    wanted = None if keep is None else ({keep} if isinstance(keep, str) else set(keep))
    update, updates = _per_rate(update, updates, wanted)
    memories = {n: _memory(n, updates[n], leaf.init[n], wanted) for n in updates}
    memories = _loops_kept(memories)
    psi = _direction(update, step)
    known = {before(n): value for n, value in _known_before(memories).items()}
    psi = psi.xreplace(known)
    memories = {n: replace(m, of=m.of.xreplace(known)) for n, m in memories.items()}
    memories = _delayed(memories, psi)
    forgotten = {m.fading for m in memories.values() if not m.kept and m.fading}
    remembered = {m.fading: n for n, m in memories.items() if m.kept and m.fading is not None}
    rates: dict[str, sympy.Expr] = {}
    dropped: set[sympy.Expr] = set()

    def written(expression: sympy.Expr) -> sympy.Expr:
        return in_time(expression, forgotten, remembered, rates, dropped)

    psi = written(psi)
    memories = {n: replace(memories[n], of=written(memories[n].of)) for n in _sequence(memories)}
    read = psi.free_symbols.union(*(m.of.free_symbols for m in memories.values()))
    named = {n: r for n, r in rates.items() if sympy.Symbol(n, positive=True) in read}
    return Description(psi, memories, named, frozenset(dropped))


def _expression(value: Any) -> sympy.Expr:
    if isinstance(value, Mixed):
        if value.kink is not None:
            raise value.kink
        raise CoupledError(value.why)
    found = value.expression
    if not isinstance(found, sympy.Expr) or found.has(sympy.nan, sympy.zoo, sympy.oo):
        raise UnreadableOptimizerError(
            "a hyperparameter is not a finite number: its update is "
            f"{'nan' if found.has(sympy.nan) else 'infinite'}. Give every hyperparameter a finite "
            "value"
        )
    return found


def _direction(update: sympy.Expr, step: Number | None) -> sympy.Expr:
    """The direction Psi of an update -h Psi; it may still contain h."""
    if step is not None:
        return -update / number(step)
    direction = sympy.diff(update, RATE)
    if not direction.has(RATE) and update.xreplace({RATE: sympy.Integer(0)}) == 0:
        return -direction
    terms = sympy.Add.make_args(update if update.is_Add else sympy.expand_mul(update, deep=False))
    return -sympy.Add(*(term / RATE for term in terms))


def _needed(leaf: LeafReading, update: sympy.Expr) -> dict[str, sympy.Expr]:
    """The new values, by name, of the states the update reads, and of those they read in turn."""
    found: dict[str, sympy.Expr] = {}
    names = set(leaf.states)

    def visit(expression: sympy.Expr) -> None:
        for symbol in sorted(expression.free_symbols, key=str):
            name = symbol.name if symbol.name in names else symbol.name.removesuffix("_before")
            if name in names and name not in found:
                found[name] = sympy.Integer(0)
                found[name] = _expression(leaf.states[name])
                visit(found[name])

    visit(update)
    return found


def _per_rate(
    update: sympy.Expr, updates: dict[str, sympy.Expr], wanted: set[str] | None
) -> tuple[sympy.Expr, dict[str, sympy.Expr]]:
    """The update and the states' new values, with h taken out of states that remember h times phi.

    Only eliminated states change, from s to s/h.
    """
    changed = True
    while changed:
        changed = False
        for name, own in list(updates.items()):
            if not own.has(RATE) or _is_kept(name, _fading(name, own), wanted):
                continue
            scaled = own.xreplace({before(name): RATE * before(name)})
            per_rate = _homogeneous(scaled)
            if per_rate is None:
                continue
            turned = per_rate.xreplace({before(name): sympy.Integer(0)}).could_extract_minus_sign()
            if turned:  # so that it remembers what is descended along
                per_rate = -per_rate.xreplace({before(name): -before(name)})
            sign = -1 if turned else 1
            times = {s: sign * RATE * s for s in (before(name), sympy.Symbol(name))}
            update = update.xreplace(times)
            updates = {n: u if n == name else u.xreplace(times) for n, u in updates.items()}
            updates[name] = per_rate
            changed = True
    return update, updates


def _homogeneous(expression: sympy.Expr) -> sympy.Expr | None:
    """The expression divided by h if the quotient is free of h, otherwise None."""
    slope = sympy.diff(expression, RATE)
    if slope.has(RATE) or expression.xreplace({RATE: sympy.Integer(0)}) != 0:
        return None
    return slope


def _fading(name: str, update: sympy.Expr) -> sympy.Expr | None:
    """The number b if the update of a state s is b s + .., otherwise None."""
    slope = sympy.diff(update, before(name))
    if slope.is_number:
        return slope if slope.is_real else None
    symbols = sorted(slope.free_symbols, key=str)
    at = sympy.lambdify(symbols, slope, "numpy")
    points = np.random.default_rng(0).uniform(1.0, 2.0, (4, len(symbols)))
    with np.errstate(all="ignore"):
        values = [complex(at(*point)) for point in points]
    if not np.allclose(values, values[0], rtol=1e-9):
        return None
    simple = sympy.simplify(slope)
    return simple if simple.is_number and simple.is_real else None


def _is_kept(name: str, fading: sympy.Expr | None, wanted: set[str] | None) -> bool:
    if fading is None or abs(fading) >= 1:
        return True
    return bool(abs(fading) > LONG) if wanted is None else name in wanted


def _memory(name: str, update: sympy.Expr, init: Any, wanted: set[str] | None) -> Memory:
    old, own = before(name), sympy.Symbol(name)
    if update == old:
        return Memory(own, None, None, sympy.Integer(1), init, "it does not change")
    fading = _fading(name, update)
    if fading is not None and abs(fading) > 1:
        raise UnreadableOptimizerError(
            f"the state {name} grows by the factor {float(fading):g} in every step: nothing slow "
            "is left to follow"
        )
    gained = update if fading is None else _gained(update, old, fading)
    if fading is None or abs(fading) == 1:
        why = "it is no linear memory" if fading is None else "it accumulates"
        per_rate = _homogeneous(gained) if fading == 1 else None
        if per_rate is not None:
            return Memory(per_rate, fading, None, None, init, why)
        return Memory(update.xreplace({old: own}), fading, None, sympy.Integer(1), init, why)
    if _is_kept(name, fading, wanted):
        asked = "" if wanted is None else ", and was asked for"
        why = f"it forgets a share of {float(1 - fading):g} in a step{asked}"
        return Memory(_over(gained, 1 - fading), fading, None, 1 - fading, init, why)
    weight, of = gained.as_coeff_Mul()
    return Memory(of, fading, weight / (1 - fading * _BACK), None, init)


def _gained(update: sympy.Expr, old: sympy.Symbol, fading: sympy.Expr) -> sympy.Expr:
    """The term phi of an update s <- b s + phi."""
    terms = sympy.Add.make_args(update)
    apart = [x for x in terms if not x.has(old)]
    if sympy.Add(*(x for x in terms if x.has(old))) == fading * old:
        return sympy.Add(*apart)
    found = sympy.expand(update - fading * old)
    return sympy.simplify(found) if found.has(old) else found


def _over(expression: sympy.Expr, by: sympy.Expr) -> sympy.Expr:
    return sympy.Add(*(term / by for term in sympy.Add.make_args(expression)))


def _loops_kept(memories: dict[str, Memory]) -> dict[str, Memory]:
    """The memories with those kept that depend on their own past through other states."""

    def feeds(name: str) -> set[str]:
        read = {s.name.removesuffix("_before") for s in memories[name].of.free_symbols}
        return read & memories.keys()

    found = dict(memories)
    for name, memory in memories.items():
        seen, frontier = set(), feeds(name)
        while frontier - seen:
            seen |= frontier
            frontier = set().union(*(feeds(n) for n in frontier))
        if name in seen and not memory.kept and memory.fading is not None:
            weight = memory.transfer.xreplace({Z: sympy.oo}) if memory.transfer is not None else 1
            of = weight * memory.of / (1 - memory.fading)
            why = "it is fed by its own past through other states"
            found[name] = replace(memory, of=of, transfer=None, rate=1 - memory.fading, why=why)
    return found


def _known_before(memories: Mapping[str, Memory]) -> dict[str, sympy.Expr]:
    """The old values of those states for which they are a function of the new ones, by name."""
    found = {}
    for name, memory in memories.items():
        own = sympy.Symbol(name)
        if memory.kept and memory.of == own:
            found[name] = own
        elif memory.kept and memory.rate is None:
            found[name] = own - RATE * memory.of
    return found


def _delayed(memories: dict[str, Memory], psi: sympy.Expr) -> dict[str, Memory]:
    """The memories with a further channel for each eliminated state read before its update."""
    found = dict(memories)

    def reads() -> set[str]:
        all_read = psi.free_symbols.union(*(m.of.free_symbols for m in found.values()))
        return {s.name for s in all_read}

    for name, memory in memories.items():
        if memory.transfer is not None and before(name).name in reads():
            found[before(name).name] = replace(memory, transfer=_BACK * memory.transfer)
    unread = [n for n, m in found.items() if not m.kept and n not in reads()]
    return {n: m for n, m in found.items() if n not in unread}


def _sequence(memories: Mapping[str, Memory]) -> list[str]:
    """The names of the memories, each after those whose new value it reads."""
    waiting = {
        n: {s.name for s in m.of.free_symbols if s.name in memories} - {n}
        for n, m in memories.items()
    }
    done: list[str] = []
    while waiting:
        ready = [n for n, reads in waiting.items() if not reads & waiting.keys()]
        if not ready:
            raise UnreadableOptimizerError(
                f"the states {', '.join(waiting)} read each other's new values"
            )
        done += ready
        waiting = {n: reads for n, reads in waiting.items() if n not in ready}
    return done


__all__ = ["CLOCK", "CoupledError", "Description", "Memory", "describe"]
