"""Optimizers whose rule couples elements: their own update, replayed, as a method of kind rules.

Memories are recognised by numerical values instead of formulas: a state is s <- b s + phi if the
derivative of its new value in its old one is the number b at every point tried. The rest is a
function of the gradient, params and the states, which the optimizer's own update computes.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import sympy
from jaxtyping import PyTree

from igr.backward_error.algebra.taylor import Z
from igr.backward_error.methods import rule
from igr.backward_error.rules.rule import RuleMethod
from igr.tracing.describe import LONG
from igr.tracing.program import Application, Program, Variable
from igr.tracing.replayed import Replayed
from igr.tracing.states import Readings
from igr.tracing.symbols.values import number
from igr.tracing.trace import Traced
from igr.tracing.unreadable import UnreadableOptimizerError

_BACK = sympy.exp(-Z)


@dataclass(frozen=True)
class CoupledReading:
    """What `coupled_reading` recognised of an optimizer that couples elements.

    Attributes:
      method: the optimizer as a method of the kind rules.
      fading: name -> b for each state s <- b s + phi that is eliminated.
      why: name -> the reason why a state is kept.
      fixed: the indices of state leaves that never change and do not depend on params.
    """

    method: RuleMethod
    fading: dict[str, sympy.Expr]
    why: dict[str, str]
    fixed: frozenset[int]


def coupled_reading(
    traced: Traced, found: Readings, keep: Sequence[str] | None, name: str
) -> CoupledReading:
    """Recognises the memories of an optimizer by their values, and replays its update for the rest.

    Raises:
      UnreadableOptimizerError: where a state is a count that does not advance with the steps, the
        rule jumps, or a memory grows.
    """
    replayed = Replayed(traced, found)
    replayed.check()
    fading: dict[Any, Any] = {}
    why: dict[Any, str] = {}
    for state in replayed.moving:
        b = replayed.fading(state)
        if b is None:
            replayed.check_no_buffer(state)
        if b is not None and abs(b) > 1:
            raise UnreadableOptimizerError(
                f"the state {state} grows by the factor {float(b):g} in every step: nothing slow "
                "is left to follow"
            )
        if b is not None and abs(b) < 1 and (abs(b) <= LONG if keep is None else state not in keep):
            fading[state] = b
        elif b is not None and abs(b) < 1:
            why[state] = f"it forgets a share of {float(1 - b):g} in a step"
        else:
            why[state] = "it accumulates" if b == 1 else "it is no linear memory"
    method = _method(replayed, fading, why, name)
    kept = {n: w for n, w in why.items() if n in method.kept}
    gone = {n: b for n, b in fading.items() if {n, f"{n}_before"} & {a for a, _ in method.channels}}
    return CoupledReading(method, gone, kept, frozenset(replayed.fixed))


def _method(
    replayed: Replayed, fading: dict[str, sympy.Expr], why: dict[str, str], name: str
) -> RuleMethod:
    psi = _Part(replayed, None, frozenset(fading))
    channels: dict[str, Any] = {}
    kept: dict[str, Any] = {}
    waiting, done = [psi], {"g", "theta", "t", "clock"}
    while waiting:
        part = waiting.pop()
        for read in part.reads:
            state = read.removesuffix("_before")
            if read in done or state not in (*fading, *why):
                continue
            done.add(read)
            new = _Part(replayed, state, frozenset(fading))
            if state in fading:
                memory = 1 / (1 - fading[state] * _BACK)
                channels[read] = new, memory if read == state else _BACK * memory
            elif state not in kept:
                kept[state] = new, 1, replayed.start(state)
            waiting.append(new)
    return rule(psi, channels, kept, {"clock": 1}, name=name)


class _Part:
    """The update of one state, or the rule, as a function of the quantities it reads by name.

    Args:
      replayed: the optimizer's update.
      state: the name of the state; None for the rule.
      eliminated: the names of the states that are channels.
    """

    __hash__ = None  # pyright: ignore[reportAssignmentType]  # known by what it does, as code is

    def __init__(self, replayed: Replayed, state: str | None, eliminated: frozenset[str]):
        self._replayed, self._state, self._eliminated = replayed, state, eliminated
        traced = replayed.traced
        self.reads = self._reads(traced.update)
        kind = inspect.Parameter.KEYWORD_ONLY
        self.__signature__ = inspect.Signature([inspect.Parameter(n, kind) for n in self.reads])

    def _outputs(self, program: Program) -> list[Any]:
        """The program's outputs that this part computes: the updates, or the state's new leaves."""
        count = len(self._replayed.traced.params)
        if self._state is None:
            return list(program.outputs[:count])
        return [program.outputs[count + p] for p in self._replayed.places(self._state)]

    def _after(self, program: Program, replayed: Replayed) -> dict[Variable, tuple[str, int]]:
        """The updated channels among the program's variables, each with its name and leaf."""
        count = len(replayed.traced.params)
        found: dict[Variable, tuple[str, int]] = {}
        for name in sorted(self._eliminated - {self._state}):
            for i, place in enumerate(replayed.places(name)):
                variable = program.outputs[count + place]
                if isinstance(variable, Variable) and variable not in program.inputs:
                    found.setdefault(variable, (name, i))
        return found

    def _reads(self, program: Program) -> list[str]:
        """The names of the quantities that this part depends on."""
        replayed, traced = self._replayed, self._replayed.traced
        count = len(traced.params)
        after = self._after(program, replayed)
        made_by: dict[Variable, Application] = {
            v: step for step in program.applications for v in step.outputs
        }
        inputs = {v: i for i, v in enumerate(program.inputs)}
        names, seen, frontier = {"clock"}, set(), self._outputs(program)
        while frontier:
            atom = frontier.pop()
            if not isinstance(atom, Variable) or atom in seen:
                continue
            seen.add(atom)
            if atom in after:
                names.add(after[atom][0])
            elif atom in made_by:
                frontier += made_by[atom].inputs
            elif 1 <= inputs[atom] <= count:
                names |= {"g", "theta"}
            elif inputs[atom] > 2 * count:
                place = inputs[atom] - 1 - 2 * count
                name = traced.names[place]
                if place in replayed.numbers:
                    names.add("t")
                elif place not in replayed.found.numbers and place not in replayed.fixed:
                    own = name == self._state
                    if not (own and name in self._eliminated):
                        names.add(name if own else f"{name}_before")
        return sorted(names | {"theta", "g"})

    def __call__(self, **values: Any) -> PyTree:
        theta, gradient, clock = values["theta"], values["g"], values["clock"]
        replayed = self._replayed.like(theta)
        traced = replayed.traced
        program = replayed.program(gradient, theta)
        flat, structure = jax.tree.flatten(theta)
        count = len(flat)
        first = 1 + 2 * count
        dtype = program.shapes[program.inputs[0]].dtype
        steps = values["t"] * clock - 1 if "t" in values else 0.0
        state: list[Any] = []
        for place, variable in enumerate(program.inputs[first:]):
            shape, name = program.shapes[variable], traced.names[place]
            if place in replayed.numbers:
                at = replayed.numbers[place](steps, 1 / clock)
                state.append(jnp.asarray(at, shape.dtype))
            elif place in replayed.found.numbers:
                state.append(jnp.asarray(replayed.found.numbers[place], shape.dtype))
            elif place in replayed.fixed:
                state.append(None)
            else:
                known = values.get(name if name == self._state else f"{name}_before")
                i = replayed.places(name).index(place)
                state.append(jnp.zeros(shape.shape, shape.dtype) if known is None else known[i])
        for place, value in replayed.fixed_values(theta).items():
            state[place] = value
        changed = {
            variable: lambda _, name=name, i=i: values[name][i]
            for variable, (name, i) in self._after(program, replayed).items()
            if name in values
        }
        arguments = [jnp.asarray(1 / clock, dtype), *jax.tree.leaves(gradient), *flat, *state]
        if self._state is not None:
            wanted = [count + p for p in replayed.places(self._state)]
            return tuple(program.replay(arguments, changed=changed, wanted=wanted))
        made = program.replay(arguments, changed=changed, wanted=range(count))
        rate = clock if traced.step is None else 1 / float(number(traced.step))
        return jax.tree.unflatten(structure, [-(rate * x) for x in made])
