"""Compares the description that was read of an optimizer with the optimizer's own steps."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import sympy

from igr.checks import Number
from igr.flows.run import optimizer_of
from igr.tracing import Reading, UnreadableOptimizerError
from igr.tracing.smoothing import smoothed
from igr.tracing.symbols.values import STEPS

_STEPS = 20
_APART = 3  # steps before those, in which states leave what they are before the first step
_LEAST = 1e-6  # of the way that the optimizer goes
# By the bytes of the coarsest float in the update: of a step, and of the longest step seen, where
# one step is the small difference of large numbers, as near the end of a schedule.
_TOLERANCE = {8: (1e-9, 1e-14), 4: (2e-6, 5e-7)}
_COARSE = (1e-2, 1e-2)
_PLAIN = 0.01
_SINGLE = 1.2e-7  # of a power of single precision, a step
_PIECES = 6  # the corners of a schedule about which steps are taken, first and last ones
_AFTER = 50  # steps after the last corner

_certified: set[Any] = set()


def check_own_steps(reading: Reading) -> None:
    """Raises unless the description takes the optimizer's own steps to nine digits.

    Steps are taken at the start, before and after every step at which a schedule changes its
    formula, between these, after the last, and after the start-up. Where a learning rate ends at 0
    both must stand still, to the rounding of the longest step that was seen.

    Args:
      reading: what was read of the optimizer.

    Raises:
      UnreadableOptimizerError: if steps differ, or there are none to compare.
    """
    key = _key(reading)
    if key in _certified:
        return
    floats = [x.dtype for x in reading.traced.update.shapes.values()]
    coarsest = min(d.itemsize for d in floats if jnp.issubdtype(d, jnp.floating))
    name = reading.method.name
    by_hand = (
        "This is a fault of the reading: describe the optimizer by hand with "
        "igr.methods.elementwise or igr.methods.rule"
    )
    with jax.enable_x64(True):
        beside = _SideBySide(reading)
        starts = windows(reading)
        apart, length = np.array([beside.steps(start) for start in starts]).transpose(2, 0, 1)
        real, ours = beside.travelled()
    if not np.all(np.isfinite(length)):
        raise UnreadableOptimizerError(
            f"{name} itself takes steps that are no finite numbers, on gradients of size "
            "one: is a hyperparameter nan or infinite?"
        )
    # Memories that are taken to have filled have not then: only whether there is motion is asked.
    if real == ours == 0 and not np.any(length):
        raise UnreadableOptimizerError(
            f"{name} itself does not move, on gradients of size one: there is nothing to hold a "
            "description against. Give it hyperparameters with which it trains"
        )
    relative, rounding = _TOLERANCE.get(coarsest, _COARSE)
    apart, length = apart[:, _APART:], length[:, _APART:]
    late = np.array(starts)[:, None] * (_SINGLE if coarsest == 4 and not reading.description else 0)
    longest = np.max(length)
    allowed = (relative + late) * length + rounding * longest
    wrong = ~(apart <= allowed)
    if np.any(wrong):
        first = int(np.argmax(np.any(wrong, axis=1)))
        with np.errstate(all="ignore"):
            worst = np.max(
                np.where(wrong, apart / np.maximum(length, rounding * longest), 0)[first]
            )
        raise UnreadableOptimizerError(
            f"the description of {name} does not take its steps: they are {worst:.1e} "
            f"apart, relatively, within {_STEPS} steps from step {starts[first] + _APART}. "
            f"{by_hand}"
        )
    alike = (real == ours == 0) or not (np.isfinite(real) or np.isfinite(ours))
    if not alike and not _LEAST * real < ours < real / _LEAST:
        raise UnreadableOptimizerError(
            f"the description of {name} goes {ours:.1e} in its first {_STEPS} steps, where the "
            f"optimizer goes {real:.1e}. {by_hand}"
        )
    if longest <= rounding * real:
        raise UnreadableOptimizerError(
            f"{name} takes steps only before step {starts[0]}, from which on its description "
            "holds: there is nothing to hold it against. Keep the states that forget slowly, "
            "keep=(...), or let its learning rate last longer"
        )
    _certified.add(key)


def _key(reading: Reading) -> Any:
    applied = tuple(
        (step.primitive.name, str(step.parameters), step.inputs and str(step.inputs))
        for step in reading.traced.update.applications
    )
    shapes = tuple((x.shape, str(x.dtype)) for x in reading.traced.params)
    # A rule that is code is known by that code, which the applications are, and by what it keeps.
    method = reading.method if reading.description is None else None
    parts = method and (
        method.psi.names,
        [(a, str(channel.transfer)) for a, channel in method.channels],
        [(y, str(state.rate)) for y, state in method.states],
    )
    return hash((applied, shapes, str(reading.description), str(parts), reading.smooth))


def windows(reading: Reading) -> list[int]:
    """The step numbers from which the optimizer and its description are compared.

    They are the start, the steps at which schedules change their formula, points between these and
    after the last, and the end of the start-up.
    """
    first = reading.found.settled if _can_be_filled(reading) else reading.since
    cuts = sorted(cut for cut in set(reading.found.turns) | _cuts(reading) if cut > 1)
    if len(cuts) > _PIECES:
        cuts = [*cuts[: _PIECES // 2], *cuts[-_PIECES // 2 :]]
    ends = [0, *cuts]
    about = [cut - _STEPS // 2 - _APART for cut in cuts]
    between = [(a + b) // 2 for a, b in itertools.pairwise(ends)]
    after = [ends[-1] + _AFTER]
    return sorted({reading.since, *(max(x, first) for x in (0, *about, *between, *after))})


def _cuts(reading: Reading) -> set[int]:
    """The steps at which a schedule changes its formula."""
    if reading.description is None:
        return set()
    expressions = [reading.description.rule, *(m.of for m in reading.description.memories.values())]
    clock, t = sympy.Symbol("clock", positive=True), sympy.Symbol("t", positive=True)
    cuts = set()
    for expression in expressions:
        for piecewise in expression.atoms(sympy.Piecewise):
            for _, condition in piecewise.args[:-1]:
                ends = sympy.solve(
                    condition.lhs.subs(t, (STEPS + 1) / clock) - condition.rhs, STEPS
                )
                cuts |= {int(end) for end in ends if end.is_number}
    return cuts


def _can_be_filled(reading: Reading) -> bool:
    """Whether the bias corrections can be removed from the optimizer's own update."""
    dropped = reading.description.dropped if reading.description else frozenset()
    return dropped <= set(reading.found.powers.values())


class _SideBySide:
    """Steps of an optimizer and of its description, computed from the same gradients."""

    def __init__(self, reading: Reading):
        traced = reading.traced
        self._reading = reading
        self.h = h = _PLAIN if traced.step is None else traced.step
        random = np.random.default_rng(0)
        self._params, phases = (
            jax.tree.unflatten(
                traced.structure, [jnp.asarray(draw(x.shape)) for x in traced.params]
            )
            for draw in (lambda s: random.normal(size=s), lambda s: random.uniform(0, 6, size=s))
        )
        self._describe = describe = optimizer_of(reading.method, h)
        at = reading.found.smoothed_at
        instead = smoothed(traced.update, at, reading.smooth) if reading.smooth and at else {}
        dropped = reading.description.dropped if reading.description else frozenset()
        powers = {v for v, b in reading.found.powers.items() if b in dropped}

        @jax.jit
        def step(
            params: Any, state: Any, described: Any, shift: Any, moves: Any, filled: Any
        ) -> Any:
            """One step of both; params stay, or follow the optimizer (1) or the description (2).

            Where filled, the optimizer's memories are taken to be full, as in the description.
            """
            gradient = jax.tree.map(
                lambda x, phase: jnp.sin(1.7 * x + phase + shift), params, phases
            )
            if instead or powers:
                forget = lambda x: jnp.where(filled, jnp.zeros_like(x), x)  # noqa: E731
                flat = [h, *jax.tree.leaves((gradient, params, state))]
                made = traced.update.replay(
                    flat, instead=instead, changed=dict.fromkeys(powers, forget)
                )
                real, state = jax.tree.unflatten(jax.tree.structure((params, state)), made)
            else:
                real, state = traced.make(h).update(gradient, state, params)
            ours, described = describe.update(gradient, described, params)
            apart = optax.tree.norm(optax.tree.sub(real, ours))
            follow = lambda p, x, y: p + jnp.where(moves == 1, x, jnp.where(moves == 2, y, 0))  # noqa: E731
            moved = jax.tree.map(follow, params, real, ours)
            return moved, state, described, apart, optax.tree.norm(real), optax.tree.norm(ours)

        self._step = step

    def steps(self, start: int) -> list[tuple[float, float]]:
        """The distance and the optimizer's length of each of the steps from `start` on."""
        reading, traced = self._reading, self._reading.traced
        params, described = self._params, self._describe.init(self._params)
        state = _state_at(reading, start, self.h, params)
        if hasattr(described, "kept"):
            leaves = jax.tree.leaves(state)
            kept = dict(described.kept)
            for name in reading.method.kept:
                own = [leaves[p] for p, n in enumerate(traced.names) if n == name]
                kept[name] = jax.tree.unflatten(jax.tree.structure(kept[name]), own)
            described = described._replace(count=jnp.asarray(float(start)), kept=kept)
        found, filled = [], start < reading.since
        for n in range(-_APART, _STEPS):
            # First the states leave where they begin, in the middle of a run: a root of 0 is there.
            params, state, described, apart, length, _ = self._step(
                params, state, described, min(n, 0) / 3, int(n >= 0), filled
            )
            found.append((float(apart), float(length)))
        return found

    def travelled(self) -> tuple[float, float]:
        """The lengths of the optimizer's and the description's first steps, each on its own run."""
        lengths = [0.0, 0.0]
        for which in (0, 1):
            params, described = self._params, self._describe.init(self._params)
            state = self._reading.traced.make(self.h).init(params)
            for _ in range(_STEPS):
                params, state, described, _, *both = self._step(
                    params, state, described, 0.0, which + 1, False
                )
                lengths[which] += float(both[which])
        return lengths[0], lengths[1]


def _state_at(reading: Reading, start: int, h: Number, params: Any) -> Any:
    """The optimizer's state after this many steps, with its eliminated memories empty."""
    traced = reading.traced
    fresh = traced.make(h).init(params)
    leaves = [jnp.asarray(x) for x in jax.tree.leaves(fresh)]
    rate = sympy.Symbol("h", positive=True)
    numbers = reading.found.numbers
    forgotten = {str(a).removesuffix("_before") for a, _ in getattr(reading.method, "channels", ())}
    if not hasattr(reading.method, "channels"):
        forgotten = set(traced.names)
    for place, name in enumerate(traced.names):
        like = leaves[place]
        if place in numbers:
            at = numbers[place]
            if isinstance(at, sympy.Basic):
                at = complex(at.subs({STEPS: start, rate: h})).real
            leaves[place] = jnp.asarray(at, like.dtype)
        elif name in forgotten:
            leaves[place] = jnp.zeros_like(like)
    return jax.tree.unflatten(jax.tree.structure(fresh), leaves)
