"""An optimizer's update as a program for any params, whose step counts are real numbers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import sympy
from jaxtyping import PyTree

from igr.tracing.program import Program, Variable, flatten
from igr.tracing.states import Readings, readings
from igr.tracing.symbols.values import RATE, STEPS
from igr.tracing.trace import Traced, trace
from igr.tracing.unreadable import UnreadableOptimizerError

# Of a state where its slope is looked at: the larger of it and of something else, as a distance so
# far, has one slope where it is small and another where it is large.
_SIZES = (1e-6, 1.0, 1e6)
_LONGEST = 64  # a buffer that is looked for


class Replayed:
    """An optimizer's update as a program for any params, whose step counts are real numbers."""

    def __init__(self, traced: Traced, found: Readings):
        self.traced, self.found = traced, found
        self._programs: dict[Any, Program] = {}
        self._others: dict[Any, Replayed] = {_shapes(traced.params, traced.structure): self}
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

    def like(self, params: PyTree) -> Replayed:
        """The same optimizer traced for params of another structure."""
        flat, structure = jax.tree.flatten(params)
        key = _shapes(flat, structure)
        if key not in self._others:
            examples = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in flat]
            tree = jax.tree.unflatten(structure, examples)
            traced = trace(self.traced.make, tree, self.traced.step)
            self._others[key] = Replayed(traced, readings(traced, None))
        return self._others[key]

    def places(self, state: str) -> list[int]:
        """The indices of a state's leaves among the leaves of the optimizer state."""
        return [p for p, n in enumerate(self.traced.names) if n == state and p not in self.fixed]

    def check(self) -> None:
        """Raises `UnreadableOptimizerError` if no expansion in h can follow the update."""
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
        """The function from params to a state's leaves before the first step."""
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
        """The update as a program for a gradient and params of these shapes and dtypes."""
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
        """The number b if the update of a state s is b s + phi, otherwise None."""
        with jax.enable_x64(True):
            seen = []
            for size in _SIZES:
                after, own, along = self._alone(state, size)
                _, slopes = jax.jvp(after, (own,), (along,))
                seen += [np.ravel(s / a) for s, a in zip(slopes, along, strict=True)]
            every = np.concatenate(seen)
        if every.size == 0 or not np.allclose(every, every[0], rtol=1e-10, atol=1e-13):
            return None
        return sympy.Rational(f"{float(every[0]):.12g}")

    def check_no_buffer(self, state: str) -> None:
        """Raises `UnreadableOptimizerError` if a state is a buffer of the last few values."""
        with jax.enable_x64(True):
            after, own, along = self._alone(state, 1.0)
            held, trained = (
                sum(int(np.prod(x.shape)) for x in xs) for xs in (own, self.traced.params)
            )
            slots = -(-held // max(trained, 1))
            if not 1 < slots <= _LONGEST:
                return
            for _ in range(slots):
                along = jax.jvp(after, (own,), (along,))[1]
        if not any(np.any(x) for x in along):
            raise UnreadableOptimizerError(
                f"the state {state} holds what was seen in the last {slots} steps: a memory of so "
                "many steps, which no variable of a flow stands for. Describe it: "
                "igr.methods.linear_memory, with e^(-k z) for what is k steps old, or a channel "
                "for each in igr.methods.rule"
            )

    def _alone(self, state: str, size: float) -> tuple[Any, list[Any], list[Any]]:
        """The update of a state as a function of it alone, a point of this size, a direction."""
        gradient, params, random = self._point
        program = self.program(gradient, params)
        places = self.places(state)
        first = 1 + 2 * len(self.traced.params)
        leaves = [
            jnp.asarray(random.uniform(0.5, 1.5, program.shapes[v].shape))
            for v in program.inputs[first:]
        ]
        for place, value in self.fixed_values(params).items():
            leaves[place] = value
        for place, value in self.found.numbers.items():
            at = self.numbers[place](50.0, 0.1) if place in self.numbers else value
            leaves[place] = jnp.asarray(at, program.shapes[program.inputs[first + place]].dtype)

        def after(own: list[Any]) -> list[Any]:
            whole = list(leaves)
            for place, value in zip(places, own, strict=True):
                whole[place] = value
            flat = [jax.tree.leaves(x) for x in (gradient, params)]
            given = [jnp.asarray(0.1), *flat[0], *flat[1], *whole]
            return program.replay(given, wanted=[len(flat[0]) + p for p in places])

        own = [size * leaves[p] for p in places]
        return after, own, [jnp.asarray(random.uniform(0.5, 1.5, x.shape)) for x in own]

    def fixed_values(self, params: PyTree) -> dict[int, Any]:
        """The constant leaves of the state by index, as `init` makes them for params."""
        if not self.fixed:
            return {}
        leaves = jax.tree.leaves(self.traced.make(self.traced.step or 0.1).init(params))
        return {place: jnp.asarray(leaves[place]) for place in self.fixed}


def _shapes(leaves: Sequence[Any], structure: Any) -> Any:
    return tuple(tuple(x.shape) for x in leaves), structure


def _depends(program: Program, output: int, on: Any) -> bool:
    """Whether an output of a program depends on some of its inputs."""
    wanted = {program.inputs[i] for i in on}
    outputs = [program.outputs[output]]
    atoms = [*outputs, *(a for step in program.before(outputs) for a in step.inputs)]
    return any(isinstance(a, Variable) and a in wanted for a in atoms)
