"""An optimizer whose rule couples elements: its own code, replayed, as a method of the kind rules.

The states are recognised as before, but by their values: s <- b s + phi where the derivative of
what a state becomes is b times what it was, whatever else stands at the point. What remains is a
function of the gradient, params, and the states, which the optimizer's own update computes.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import sympy
from jaxtyping import PyTree

from igr.backward_error.algebra.taylor import Z
from igr.backward_error.methods import rule
from igr.backward_error.rules.rule import RuleMethod
from igr.tracing.describe import LONG
from igr.tracing.program import Application, Program, Variable, flatten
from igr.tracing.states import Readings, readings
from igr.tracing.symbolic import RATE, STEPS, number
from igr.tracing.trace import Traced, trace
from igr.tracing.unreadable import UnreadableOptimizerError

_BACK = sympy.exp(-Z)


@dataclass(frozen=True)
class CoupledReading:
    """What was recognised of an optimizer that couples elements.

    Attributes:
      method: of the kind rules.
      fading: b of each memory that is eliminated, by name.
      why: why a state is kept, by name.
      fixed: the places of states that stay as they start, whatever params are.
    """

    method: RuleMethod
    fading: dict[str, sympy.Expr]
    why: dict[str, str]
    fixed: frozenset[int]


def coupled_reading(
    traced: Traced, found: Readings, keep: Sequence[str] | None, name: str
) -> CoupledReading:
    """Recognises the memories of an optimizer by their values, and replays the rest.

    Raises:
      UnreadableOptimizerError: where a state is a count that does not run with the steps, a rule
        jumps, or a memory grows.
    """
    replayed = _Replayed(traced, found)
    replayed.check()
    fading: dict[Any, Any] = {}
    why: dict[Any, str] = {}
    for state in replayed.moving:
        b = replayed.fading(state)
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
    replayed: _Replayed, fading: dict[str, sympy.Expr], why: dict[str, str], name: str
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


class _Replayed:
    """An optimizer's update, traced for any params with counts that are real numbers."""

    def __init__(self, traced: Traced, found: Readings):
        self.traced, self.found = traced, found
        self._programs: dict[Any, Program] = {}
        self._others: dict[Any, _Replayed] = {_shapes(traced.params, traced.structure): self}
        count = len(traced.params)
        self.fixed = {
            place
            for place, leaf in enumerate(traced.leaves)
            if place not in found.numbers
            and traced.update.outputs[count + place] is traced.update.inputs[1 + 2 * count + place]
            and not _depends(traced.init, place, range(1, 1 + count))
        }
        names = [
            n for p, n in enumerate(traced.names) if p not in found.numbers and p not in self.fixed
        ]
        self.moving = list(dict.fromkeys(names))
        self.numbers = {
            place: sympy.lambdify((STEPS, RATE), value, "jax")
            for place, value in found.numbers.items()
            if isinstance(value, sympy.Basic)
        }

    def like(self, params: PyTree) -> _Replayed:
        """The same optimizer on params of another structure, where its state stands elsewhere."""
        flat, structure = jax.tree.flatten(params)
        key = _shapes(flat, structure)
        if key not in self._others:
            examples = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in flat]
            tree = jax.tree.unflatten(structure, examples)
            traced = trace(self.traced.make, tree, self.traced.step)
            self._others[key] = _Replayed(traced, readings(traced, None))
        return self._others[key]

    def places(self, state: str) -> list[int]:
        """Where the leaves of a state stand."""
        return [p for p, n in enumerate(self.traced.names) if n == state and p not in self.fixed]

    def check(self) -> None:
        """Raises where the update does what no expansion follows."""
        traced = self.traced
        for place, name in enumerate(traced.names):
            shape = traced.update.shapes[traced.update.inputs[1 + 2 * len(traced.params) + place]]
            unsolved = place not in self.found.numbers and place not in self.fixed
            if unsolved and not jnp.issubdtype(shape.dtype, jnp.inexact):
                raise UnreadableOptimizerError(
                    f"the state {name} counts or chooses what does not run with the steps, as an "
                    "optimizer does that updates only every so many steps, or takes different "
                    "steps in turn: there is no one rule to follow. Read the optimizer inside it"
                )
        if any(
            step.primitive.name == "rem" for step in traced.update.before(traced.update.outputs)
        ):
            raise UnreadableOptimizerError(
                "it does something only every so many steps, as renewing a projection: between "
                "them and at them it follows different equations, and there is no one rule"
            )
        jumps = {"sign", "round", "floor", "ceil", "sort", "top_k", "argmax", "argmin"}
        for step in traced.update.before(traced.update.outputs[: len(traced.params)]):
            shape = traced.update.shapes[step.outputs[0]].shape
            if step.primitive.name in jumps and shape != ():
                raise UnreadableOptimizerError(
                    f"its rule jumps ({step.primitive.name}) and couples elements besides: no "
                    "expansion holds, and there is no smoothing of such a rule"
                )

    def start(self, state: str) -> Any:
        """From params to a state before the first step."""
        for place in self.places(state):
            if _depends(self.traced.init, place, [0]):
                raise UnreadableOptimizerError(
                    f"the state {state} starts from the learning rate: what it is then depends on "
                    "the step, and no one equation holds"
                )
        make, step = self.traced.make, self.traced.step

        def start(params: PyTree) -> tuple[Any, ...]:
            leaves = jax.tree.leaves(make(step or 1.0).init(params))
            return tuple(jnp.asarray(leaves[p]) for p in self.like(params).places(state))

        return start

    def program(self, gradient: PyTree, params: PyTree) -> Program:
        """The update on params of these shapes."""
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
        key = tuple(map(str, jax.tree.leaves(shapes))), jax.tree.structure(shapes)
        if key not in self._programs:
            traced, step = self.traced, self.traced.step
            dtype = jnp.result_type(jnp.float32, *jax.tree.leaves(shapes))
            rate = jax.ShapeDtypeStruct((), dtype)

            def update(h: Any, g: PyTree, p: PyTree, state: PyTree) -> Any:
                return traced.make(h if step is None else step).update(g, state, p)

            init = lambda p: traced.make(step or 0.1).init(p)  # noqa: E731
            state = jax.eval_shape(init, shapes)
            leaves = jax.tree.leaves(state)
            for place in self.numbers:
                leaves[place] = jax.ShapeDtypeStruct((), dtype)
            state = jax.tree.unflatten(jax.tree.structure(state), leaves)
            self._programs[key] = flatten(jax.make_jaxpr(update)(rate, shapes, shapes, state))
        return self._programs[key]

    @cached_property
    def _point(self) -> tuple[Any, ...]:
        random = np.random.default_rng(0)
        shapes = [x.shape for x in self.traced.params]
        params, gradient = (
            jax.tree.unflatten(
                self.traced.structure, [jnp.asarray(random.normal(size=s)) for s in shapes]
            )
            for _ in range(2)
        )
        return gradient, params, random

    def fading(self, state: str) -> sympy.Expr | None:
        """b of s <- b s + phi, None where it is none."""
        with jax.enable_x64(True):
            gradient, params, random = self._point
            program = self.program(gradient, params)
            places = self.places(state)
            first = 1 + 2 * len(self.traced.params)
            seen = []
            for _ in range(2):
                leaves = [
                    jnp.asarray(random.uniform(0.5, 1.5, program.shapes[v].shape))
                    for v in program.inputs[first:]
                ]
                for place, value in self.fixed_values(params).items():
                    leaves[place] = value
                for place, value in self.found.numbers.items():
                    at = self.numbers[place](50.0, 0.1) if place in self.numbers else value
                    leaves[place] = jnp.asarray(
                        at, program.shapes[program.inputs[first + place]].dtype
                    )

                def after(own: list[Any], leaves: list[Any] = leaves) -> list[Any]:
                    whole = list(leaves)
                    for place, value in zip(places, own, strict=True):
                        whole[place] = value
                    flat = [jax.tree.leaves(x) for x in (gradient, params)]
                    made = program.replay([jnp.asarray(0.1), *flat[0], *flat[1], *whole])
                    return [made[len(flat[0]) + p] for p in places]

                own = [leaves[p] for p in places]
                along = [jnp.asarray(random.uniform(0.5, 1.5, x.shape)) for x in own]
                _, slopes = jax.jvp(after, (own,), (along,))
                seen += [np.ravel(s / a) for s, a in zip(slopes, along, strict=True)]
            every = np.concatenate(seen)
        if every.size == 0 or not np.allclose(every, every[0], rtol=1e-10, atol=1e-13):
            return None
        return sympy.Rational(f"{float(every[0]):.12g}")

    def fixed_values(self, params: PyTree) -> dict[int, Any]:
        """The states that stay as they start."""
        if not self.fixed:
            return {}
        leaves = jax.tree.leaves(self.traced.make(self.traced.step or 0.1).init(params))
        return {place: jnp.asarray(leaves[place]) for place in self.fixed}


class _Part:
    """The update of a state, or the rule, as a function of what it reads by name.

    Args:
      replayed: the update.
      state: which state; None for the rule.
      eliminated: the states that are channels.
    """

    def __init__(self, replayed: _Replayed, state: str | None, eliminated: frozenset[str]):
        self._replayed, self._state, self._eliminated = replayed, state, eliminated
        traced = replayed.traced
        self.reads = self._reads(traced.update)
        kind = inspect.Parameter.KEYWORD_ONLY
        self.__signature__ = inspect.Signature([inspect.Parameter(n, kind) for n in self.reads])

    def _outputs(self, program: Program) -> list[Any]:
        """What it makes."""
        count = len(self._replayed.traced.params)
        if self._state is None:
            return list(program.outputs[:count])
        return [program.outputs[count + p] for p in self._replayed.places(self._state)]

    def _after(self, program: Program, replayed: _Replayed) -> dict[Variable, tuple[str, int]]:
        """The variables that are a channel's, after its update: its name and which leaf."""
        count = len(replayed.traced.params)
        found: dict[Variable, tuple[str, int]] = {}
        for name in sorted(self._eliminated - {self._state}):
            for i, place in enumerate(replayed.places(name)):
                variable = program.outputs[count + place]
                if isinstance(variable, Variable) and variable not in program.inputs:
                    found.setdefault(variable, (name, i))
        return found

    def _reads(self, program: Program) -> list[str]:
        """The names of what it depends on."""
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
        made = program.replay(arguments, changed=changed)
        if self._state is not None:
            return tuple(made[count + p] for p in replayed.places(self._state))
        rate = clock if traced.step is None else 1 / float(number(traced.step))
        return jax.tree.unflatten(structure, [-(rate * x) for x in made[:count]])


def _shapes(leaves: Sequence[Any], structure: Any) -> Any:
    return tuple(tuple(x.shape) for x in leaves), structure


def _depends(program: Program, output: int, on: Any) -> bool:
    """Whether an output depends on some of the inputs."""
    wanted = {program.inputs[i] for i in on}
    outputs = [program.outputs[output]]
    atoms = [*outputs, *(a for step in program.before(outputs) for a in step.inputs)]
    return any(isinstance(a, Variable) and a in wanted for a in atoms)
