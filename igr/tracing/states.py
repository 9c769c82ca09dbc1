"""What an optimizer's state consists of: counts, other scalars, and memories of gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sympy

from igr.backward_error.terms.algebra import THETA, G
from igr.tracing.program import Atom, Variable
from igr.tracing.symbols.on_steps import EARLY
from igr.tracing.symbols.reader import Reader
from igr.tracing.symbols.symbolic import read
from igr.tracing.symbols.values import RATE, STEPS, Mixed, Value, fading_power, number
from igr.tracing.trace import Traced


def before(name: str) -> sympy.Symbol:
    """The symbol of a state before its update; the state's own symbol is its updated value."""
    return sympy.Symbol(f"{name}_before")


@dataclass(frozen=True)
class LeafReading:
    """What an optimizer does to the elements of one leaf of params.

    Attributes:
      update: the update of one element, or a `Mixed` that says why it has no formula.
      states: name -> new value, for each state of the leaf's shape.
      init: name -> value before the first step.
    """

    update: Value | Mixed
    states: dict[str, Value | Mixed]
    init: dict[str, Any]


@dataclass(frozen=True)
class Readings:
    """What an optimizer does to each leaf of params, and to its state.

    Attributes:
      leaves: what is done to each leaf of params.
      numbers: index of a scalar state leaf -> its value as a function of the steps done.
      open: the names of the other states that have the shape of no leaf of params.
      settled: the step from which on conditions on the first steps no longer matter.
      smoothed: the names of the operations that were smoothed.
      smoothed_at: the first outputs of these applications in the update.
      chosen: output of a choice decided while reading -> the input it is equal to.
      turns: the steps at which conditions on the step change, in increasing order.
      powers: first output of an application in the update that makes b^(n + k) -> b.
    """

    leaves: tuple[LeafReading, ...]
    numbers: dict[int, Any]
    open: tuple[str, ...]
    settled: int
    smoothed: tuple[str, ...]
    smoothed_at: frozenset[Variable]
    chosen: Mapping[Variable, Atom]
    turns: tuple[int, ...] = ()
    powers: Mapping[Variable, sympy.Expr] = field(default_factory=dict)


def readings(traced: Traced, smooth: Any | None, early: int = EARLY) -> Readings:
    """Reads a traced optimizer leaf by leaf; `smooth` and `early` as of `Reader`."""
    rate = RATE if traced.step is None else number(traced.step)
    nonnegative = _start_nonnegative(traced, rate)
    while True:
        reader = Reader(smooth, nonnegative, early)
        found = _read(traced, reader, rate)
        still = {
            s
            for name in {s.name.removesuffix("_before") for s in nonnegative}
            for s in (before(name), sympy.Symbol(name))
            if all(_is_nonnegative(leaf.states.get(name), reader) for leaf in found.leaves)
        }
        if still == nonnegative:
            return found
        nonnegative = still


def _is_nonnegative(value: Value | Mixed | None, reader: Reader) -> bool:
    if value is None:
        return True
    if isinstance(value, Mixed) or not isinstance(value.expression, sympy.Expr):
        return False
    return bool(reader.assumed(value.expression).is_nonnegative)


def _start_nonnegative(traced: Traced, rate: sympy.Expr) -> set[sympy.Symbol]:
    """The symbols of states that are known to be nonnegative before the first step."""
    found: dict[str, bool] = {}
    for place, (name, leaf) in enumerate(zip(traced.names, traced.leaves, strict=True)):
        if leaf is None:
            continue
        value = _initial(traced, place, rate)
        known = isinstance(value, sympy.Expr) and bool(value.is_nonnegative)
        found[name] = found.get(name, True) and known
    return {s for name, ok in found.items() if ok for s in (before(name), sympy.Symbol(name))}


def _initial(traced: Traced, place: int, rate: sympy.Expr) -> Any:
    """The value of a state before the first step: a number, an expression in theta, or `Mixed`."""
    leaves = [Value(THETA, i) for i in range(len(traced.params))]
    (value,) = read(traced.init, [Value(rate), *leaves], Reader(None), wanted=[place])
    return value.expression if isinstance(value, Value) else value


def _read(traced: Traced, reader: Reader, rate: sympy.Expr) -> Readings:
    count = len(traced.params)
    leaves = [Value(THETA, i) for i in range(count)]
    gradients = [Value(G, i) for i in range(count)]
    numbers = _numbers(traced, reader, rate)
    state: list[Value | Mixed] = []
    unread = []
    for place, (name, leaf) in enumerate(zip(traced.names, traced.leaves, strict=True)):
        if leaf is not None:
            state.append(Value(before(name), leaf))
        elif place in numbers:
            state.append(Value(numbers[place]))
        else:
            state.append(Mixed(f"the state {name}", frozenset({before(name)})))
            unread.append(name)
    after: dict[int, Value | Mixed] = {}
    arguments = [Value(rate), *gradients, *leaves, *state]
    read(traced.update, arguments, reader)  # once, to see which choices are decided
    renamed = {}
    for place, leaf in enumerate(traced.leaves):
        variable = traced.update.outputs[count + place]
        while isinstance(variable, Variable) and variable in reader.chosen:
            variable = reader.chosen[variable]
        if leaf is None or not isinstance(variable, Variable):
            continue
        if variable in renamed or variable in traced.update.inputs:
            continue

        def noted(value: Value | Mixed, place: int = place, leaf: int = leaf) -> Value:
            after[place] = value
            return Value(sympy.Symbol(traced.names[place]), leaf)

        renamed[variable] = noted
    results: list[Any] = read(traced.update, arguments, reader, renamed)
    found = []
    for i in range(count):
        own = [p for p, leaf in enumerate(traced.leaves) if leaf == i]
        found.append(
            LeafReading(
                results[i],
                {traced.names[p]: after[p] if p in after else results[count + p] for p in own},
                {traced.names[p]: _initial(traced, p, rate) for p in own},
            )
        )
    return Readings(
        tuple(found),
        numbers,
        tuple(dict.fromkeys(unread)),
        reader.settled,
        tuple(sorted(reader.smoothed)),
        frozenset(reader.smoothed_at),
        dict(reader.chosen),
        tuple(sorted(reader.turns)),
        {v: b for v, p in reader.powers.items() if (b := fading_power(p)) is not None},
    )


def _numbers(traced: Traced, reader: Reader, rate: sympy.Expr) -> dict[int, Any]:
    """The states that are one number, as functions of the steps done, by index in the state.

    They may read one another, so passes are repeated until one finds nothing new.
    """
    alone = [p for p, leaf in enumerate(traced.leaves) if leaf is None]
    found: dict[int, Any] = {}
    while True:
        missing = [p for p in alone if p not in found]
        for place in missing:
            start = _initial(traced, place, rate)
            if isinstance(start, Mixed):
                continue
            solved = _solved(traced, reader, rate, found, place, start)
            if solved is not None:
                found[place] = solved
        if missing == [p for p in alone if p not in found]:
            return found


def _solved(
    traced: Traced,
    reader: Reader,
    rate: sympy.Expr,
    found: Mapping[int, Any],
    place: int,
    start: Any,
) -> Any:
    """A scalar state as a function of the steps done, solved from its update; None if unknown."""
    count = len(traced.params)
    own = sympy.Dummy("own")

    def after(value: Any) -> Any:
        state: list[Any] = [
            Value(found[p]) if p in found else Mixed("a state", frozenset({sympy.Dummy()}))
            for p in range(len(traced.names))
        ]
        state[place] = Value(value)
        mixed = [Mixed("the gradient", frozenset())] * count
        arguments = [Value(rate), *mixed, *mixed, *state]
        (result,) = read(traced.update, arguments, reader, wanted=[count + place])
        return None if isinstance(result, Mixed) else result.expression

    if not isinstance(start, bool):
        becomes = after(own)
        if becomes is None:
            return None
        if becomes == own:
            return start
        if isinstance(becomes, sympy.Expr):
            gained = sympy.expand(becomes - own)
            if not gained.free_symbols & {own, STEPS}:
                return start + gained * STEPS
    # Where it no longer changes after a step or two, that is what it is.
    value, seen = start, []
    for step in range(4):
        value = after(value)
        if value is None or (isinstance(value, sympy.Basic) and value.has(STEPS, own)):
            return None
        if seen and value == seen[-1]:
            reader.settled = max(reader.settled, step)
            return value
        seen.append(value)
    return None
