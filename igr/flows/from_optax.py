"""Any optax optimizer as a method: read off its own code, and proved on its own steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import sympy
from jaxtyping import PyTree

from igr.checks import Number
from igr.flows.run import optimizer_of
from igr.shown import short, table
from igr.tracing import Reading, UnreadableOptimizerError, read_optimizer
from igr.tracing.smoothing import smoothed
from igr.tracing.values import STEPS

_STEPS = 20
_APART = 3  # steps before those, in which states leave what they are before the first step
_LEAST = 1e-6  # of the way that the optimizer goes
_TOLERANCE = {8: 1e-9, 4: 2e-6}  # by the bytes of the coarsest float in the update
_PLAIN = 0.01


def from_optax(
    make: Callable[..., optax.GradientTransformation],
    *,
    keep: Iterable[str] | None = None,
    params: PyTree | None = None,
    certify: bool = True,
    smooth: Number | None = None,
) -> Any:
    """Reads an optax optimizer: what it remembers, and what it does with it.

    `init` and `update` are traced once, every primitive is read in sympy, and the states are
    recognised: averages and sums that fade, last values, counts, bias corrections and schedules as
    functions of the time, accumulators. What is linear in the gradient becomes a method of trees,
    what acts element by element one of terms.

    Args:
      make: a function of the learning rate, such as `lambda h: optax.adamw(h, weight_decay=0.1)`.
      keep: the names of the states that stay variables of the flow, as they stand in the
        optimizer's state; () for none. If not given: those that forget less than a twentieth in a
        step, such as Adam's `nu` at b2 = 0.999, for what is eliminated must fade fast beside the
        motion. States that are no linear memory, such as Adagrad's sum of squares, are kept
        always.
      params: what is to be trained, where the optimizer tells its leaves apart.
      certify: whether to hold the description against the real optimizer, step by step: a wrong
        reading is not handed out.
      smooth: reads x/sqrt(x^2 + smooth) for the sign of x, and what is made of it for |x|, maxima
        and conditions: the method then is the optimizer so changed.

    Returns:
      A method for `igr.modified_equation`. Eliminated memories are taken to have filled; kept
      states carry their bias correction. A condition on the number of the step that
      changes within the first two steps is read as it is afterwards, unless the rule would not be
      finite before.

    Raises:
      TypeError: if `make` is no function of the learning rate, or returns no transformation.
      ValueError: if `keep` names a state that does not exist.
      UnreadableOptimizerError: a `ValueError`, where there is no description; it says why and what
        to do instead.

    >>> from igr.backward_error import modified_equation
    >>> method = from_optax(lambda h: optax.sgd(h, momentum=0.5))
    >>> print(modified_equation(method, 1).modified_loss())
    2 E + 3 h |g|² + O(h²)
    """
    reading = read_optimizer(make, keep=keep, params=params, smooth=smooth)
    if certify:
        _certify(reading)
    return reading.method


class BesideState(NamedTuple):
    """The state of an optimizer with what its description keeps, by name.

    Attributes:
      leaves: of the optimizer's own state.
      kept: the kept states as the method has them.
    """

    leaves: list[Any]
    kept: dict[str, PyTree]

    __repr__ = short
    _repr_html_ = table


def read_beside(
    make: Callable[..., optax.GradientTransformation], params: PyTree, h: Number
) -> tuple[Any, optax.GradientTransformationExtraArgs]:
    """The method of an optimizer, and the optimizer at a step with the kept states by their names.

    Args:
      make: as in `from_optax`.
      params: what is to be trained.
      h: the step.
    """
    reading = read_optimizer(make, params=params)
    _certify(reading)
    real = optax.with_extra_args_support(make(h))
    traced, method = reading.traced, reading.method
    elementwise = reading.description is not None

    def named(leaves: list[Any], structure: Any) -> dict[str, PyTree]:
        found = {}
        for name in method.kept:
            own = [leaves[p] for p, n in enumerate(traced.names) if n == name]
            found[name] = jax.tree.unflatten(structure, own) if elementwise else tuple(own)
        return found

    def init(params: PyTree) -> BesideState:
        leaves = jax.tree.leaves(real.init(params))
        return BesideState(leaves, named(leaves, jax.tree.structure(params)))

    def update(
        updates: PyTree, state: BesideState, params: PyTree | None = None, **extra_args: Any
    ) -> tuple[PyTree, BesideState]:
        inner = jax.tree.unflatten(traced.state, state.leaves)
        updates, after = real.update(updates, inner, params, **extra_args)
        leaves = jax.tree.leaves(after)
        return updates, BesideState(leaves, named(leaves, jax.tree.structure(updates)))

    return method, optax.GradientTransformationExtraArgs(init, update)


_certified: set[Any] = set()


def _certify(reading: Reading) -> None:
    """Raises unless the description takes the optimizer's own steps, to nine digits."""
    key = _key(reading)
    if key in _certified:
        return
    floats = [x.dtype for x in reading.traced.update.shapes.values()]
    coarsest = min(d.itemsize for d in floats if jnp.issubdtype(d, jnp.floating))
    name, by_hand = (
        reading.method.name,
        (
            "This is a fault of the reading: describe the optimizer by hand with "
            "igr.methods.elementwise or igr.methods.rule"
        ),
    )
    with jax.enable_x64(True):
        beside = _SideBySide(reading)
        for start in _starts(reading):
            apart = beside.apart(start)
            if not beside.finite:
                raise UnreadableOptimizerError(
                    f"{name} itself takes steps that are no finite numbers, on gradients of size "
                    "one: is a hyperparameter nan or infinite?"
                )
            if not apart <= _TOLERANCE.get(coarsest, 1e-2):
                raise UnreadableOptimizerError(
                    f"the description of {name} does not take its steps: they are {apart:.1e} "
                    f"apart, relatively, within {_STEPS} steps from step {start + _APART}. "
                    f"{by_hand}"
                )
        real, ours = beside.travelled()
    # Memories that are taken to have filled have not then: only whether there is motion is asked.
    if real == ours == 0 and not beside.moved:
        raise UnreadableOptimizerError(
            f"{name} itself does not move, on gradients of size one: there is nothing to hold a "
            "description against. Give it hyperparameters with which it trains"
        )
    alike = (real == ours == 0) or not (np.isfinite(real) or np.isfinite(ours))
    if not alike and not _LEAST * real < ours < real / _LEAST:
        raise UnreadableOptimizerError(
            f"the description of {name} goes {ours:.1e} in its first {_STEPS} steps, where the "
            f"optimizer goes {real:.1e}. {by_hand}"
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


def _starts(reading: Reading) -> list[int]:
    """From where to take steps: once memories have filled, and about the cuts of schedules."""
    first = reading.since
    if reading.description is None:
        return [first]
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
    return [first, *(max(cut - _STEPS // 2, first) for cut in sorted(cuts))]


class _SideBySide:
    """Steps of an optimizer and of its description, on the same gradients.

    Attributes:
      h: their step.
      moved: whether a step of the optimizer was longer than 0.
      finite: whether its steps were finite numbers, in the middle of its run.
    """

    def __init__(self, reading: Reading):
        traced = reading.traced
        self._reading, self.moved, self.finite = reading, False, True
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

        @jax.jit
        def step(params: Any, state: Any, described: Any, shift: Any, moves: Any) -> Any:
            """One step of both; params stay, or follow the optimizer (1) or the description (2)."""
            gradient = jax.tree.map(
                lambda x, phase: jnp.sin(1.7 * x + phase + shift), params, phases
            )
            if instead:
                flat = [h, *jax.tree.leaves((gradient, params, state))]
                made = traced.update.replay(flat, instead=instead)
                real, state = jax.tree.unflatten(jax.tree.structure((params, state)), made)
            else:
                real, state = traced.make(h).update(gradient, state, params)
            ours, described = describe.update(gradient, described, params)
            apart = optax.tree.norm(optax.tree.sub(real, ours))
            apart = jnp.where(apart == 0, 0.0, apart / optax.tree.norm(real))  # a rate may end at 0
            follow = lambda p, x, y: p + jnp.where(moves == 1, x, jnp.where(moves == 2, y, 0))  # noqa: E731
            moved = jax.tree.map(follow, params, real, ours)
            return moved, state, described, apart, optax.tree.norm(real), optax.tree.norm(ours)

        self._step = step

    def apart(self, start: int) -> float:
        """How far the steps of the description are from those of the optimizer, relatively."""
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
        worst = 0.0
        for n in range(-_APART, _STEPS):
            # First the states leave where they begin, in the middle of a run: a root of 0 is there.
            params, state, described, apart, length, _ = self._step(
                params, state, described, min(n, 0) / 3, int(n >= 0)
            )
            self.moved = self.moved or float(length) > 0
            self.finite = self.finite and np.isfinite(float(length))
            if n >= 0:
                worst = max(worst, float(apart)) if np.isfinite(float(apart)) else float("inf")
        return worst

    def travelled(self) -> tuple[float, float]:
        """How long the first steps of the optimizer and of its description are, each on its way."""
        lengths = [0.0, 0.0]
        for which in (0, 1):
            params, described = self._params, self._describe.init(self._params)
            state = self._reading.traced.make(self.h).init(params)
            for _ in range(_STEPS):
                params, state, described, _, *both = self._step(
                    params, state, described, 0.0, which + 1
                )
                lengths[which] += float(both[which])
        return lengths[0], lengths[1]


def _state_at(reading: Reading, start: int, h: Number, params: Any) -> Any:
    """The optimizer's state after so many steps, eliminated memories empty."""
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
