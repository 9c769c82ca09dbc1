"""An optimizer's own code, with its step and all its clocks slowed together.

An equation in h holds as h goes to zero with eliminated memories fixed per step, but with kept
states and schedules fixed per unit of time. The optimizer itself has one learning rate, `at`. Its
update is replayed at that rate with three changes: the update of params is scaled by h/at, a kept
state makes the part of its change that belongs to the time h, and step counts are t/at. At h = at
it is the optimizer as it runs. Of its description only the kept states and their rates are used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from igr.flows.steps.ema_decay import share_taken_in
from igr.tracing import Reading
from igr.tracing.program import Program, Variable
from igr.tracing.replayed import Replayed
from igr.tracing.smoothing import smoothed
from igr.tracing.states import Readings, readings

Refined = Callable[[Any, Any], optax.GradientTransformationExtraArgs]


class RefinedState(NamedTuple):
    """The state of a slowed optimizer.

    Attributes:
      count: the slowed steps done; floating, so that a run may start between two steps' times.
      kept: the kept states by name, as the method has them.
      rest: the other leaves of the optimizer's state; None where it is a function of the count.
    """

    count: Array
    kept: dict[str, PyTree]
    rest: list[Any]


def refined(reading: Reading) -> Refined:
    """The optimizer as a function of its slowed step h and the learning rate it was given.

    Args:
      reading: what was read of the optimizer, on the params that it is to be run on.

    Returns:
      `(h, at) -> transformation`: its own update at the learning rate `at`, slowed to steps of h.
    """
    traced, method = reading.traced, reading.method
    replayed = Replayed(traced, reading.found)
    count = len(traced.params)
    rates = {str(y): state.rate for y, state in getattr(method, "states", ())}
    places = {y: replayed.places(y) for y in rates}
    kept_places = {p: (y, i) for y, own in places.items() for i, p in enumerate(own)}
    elementwise = reading.description is not None
    sums = [p for p, (y, _) in kept_places.items() if rates[y] is None]

    found_in: dict[int, tuple[Program, Readings]] = {}

    def seen(program: Program) -> Readings:
        """The readings of this program, whose variables are numbered independently."""
        if id(program) not in found_in:
            read_ = readings(dataclasses.replace(traced, update=program), reading.smooth)
            found_in[id(program)] = program, read_
        return found_in[id(program)][1]

    def named(leaves: list[Any], params: PyTree) -> dict[str, PyTree]:
        found: dict[str, PyTree] = {}
        for y, own in places.items():
            values = [leaves[p] for p in own]
            structure = jax.tree.structure(params)
            found[y] = jax.tree.unflatten(structure, values) if elementwise else tuple(values)
        return found

    def at_steps(h: Any, at: Any) -> optax.GradientTransformationExtraArgs:
        step = at if traced.step is None else traced.step

        def init(params: PyTree) -> RefinedState:
            leaves = [jnp.asarray(x) for x in jax.tree.leaves(traced.make(step).init(params))]
            apart = (*kept_places, *reading.found.numbers)
            rest = [None if p in apart else x for p, x in enumerate(leaves)]
            return RefinedState(jnp.zeros([], jnp.result_type(float)), named(leaves, params), rest)

        def update(
            updates: PyTree, state: RefinedState, params: PyTree | None = None, **extra_args: Any
        ) -> tuple[PyTree, RefinedState]:
            del extra_args
            assert params is not None
            program = replayed.program(updates, params)
            again = seen(program)
            done = (state.count + 1) * h / at - 1
            inputs = program.inputs[1 + 2 * count :]
            leaves = list(state.rest)
            for place, value in reading.found.numbers.items():
                known = replayed.numbers[place](done, at) if place in replayed.numbers else value
                leaves[place] = jnp.asarray(known, program.shapes[inputs[place]].dtype)
            kept = {y: jax.tree.leaves(value) for y, value in state.kept.items()}
            changed: dict[Variable, Callable[[Any], Any]] = {}
            for place, (y, i) in kept_places.items():
                leaves[place] = kept[y][i]
                variable = program.outputs[count + place]
                while isinstance(variable, Variable) and variable in again.chosen:
                    variable = again.chosen[variable]
                if not elementwise or place in sums:
                    continue  # read before its update, which the rule makes for itself
                if isinstance(variable, Variable) and variable not in program.inputs:
                    changed.setdefault(variable, _slowed(kept[y][i], rates[y], h, at))
            instead = {}
            if reading.smooth and again.smoothed_at:
                instead = smoothed(program, again.smoothed_at, reading.smooth)
            rate = jnp.asarray(step, program.shapes[program.inputs[0]].dtype)
            arguments = [rate, *jax.tree.leaves(updates), *jax.tree.leaves(params), *leaves]
            if sums and elementwise:
                # A sum is read as it is after its step: it starts from where that makes it so.
                whole = program.replay(arguments, instead=instead, changed=changed)[count:]
                for place in sums:
                    arguments[1 + 2 * count + place] -= (1 - h / at) * (
                        whole[place] - leaves[place]
                    )
            made = program.replay(arguments, instead=instead, changed=changed)
            after = made[count:]
            if not elementwise:
                for place, (y, i) in kept_places.items():
                    after[place] = _slowed(kept[y][i], rates[y], h, at)(after[place])
            moved = [
                (x * (h / step)).astype(p.dtype)
                for x, p in zip(made[:count], jax.tree.leaves(params), strict=True)
            ]
            rest = [None if old is None else after[p] for p, old in enumerate(state.rest)]
            new = RefinedState(state.count + 1, named(after, params), rest)
            return jax.tree.unflatten(jax.tree.structure(params), moved), new

        return optax.GradientTransformationExtraArgs(init, update)

    return at_steps


def _slowed(old: Any, rate: Any, h: Any, at: Any) -> Callable[[Any], Any]:
    """The function from a state's new value after a step `at` to its value after a step h."""
    share = h / at if rate is None else share_taken_in(rate, h, at) / float(rate)

    def slowed(new: Any) -> Any:
        return (old + share * (new - old)).astype(new.dtype)

    return slowed
