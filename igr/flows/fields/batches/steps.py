"""One step of a method on one batch, as a velocity of all slowly moving variables.

The slow state is params, the kept states and the time. With a the channels, which hold gradients of
earlier batches besides that of the step, and g that of the step's own, a step moves it by
h V(state, g, a, batch). Where V is affine in a, with a slope that does not depend on g, and what a
channel takes in is a function of the slow state and of one batch, the mean of the run is a function
of what the channels hold in the mean. In all other cases, as where a memory takes in what another
holds, the steps are taken along sequences of batches: see `over_sequences`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from igr.backward_error.protocols import UnansweredError
from igr.backward_error.rules.rule import RuleMethod
from igr.checks import Number
from igr.flows.fields.batches.as_rule import INSTEAD, not_linear
from igr.flows.steps.ema_decay import forgetting, share_taken_in
from igr.flows.steps.linear import scale_by_recurrence
from igr.flows.steps.rules import check_direction, step_meant
from igr.pytrees import combine, like_params, partition
from igr.tracing.program import Variable, flatten

BatchLossFn = Callable[[PyTree, PyTree], Array]
Hold = Callable[[str, Callable[[], PyTree]], PyTree]  # what a channel holds, of what it takes in


class Slow(NamedTuple):
    """The variables that move by O(h) in a step.

    Attributes:
      params: the floating leaves.
      kept: the floating leaves of the kept states, by name.
      t: the time.
    """

    params: PyTree
    kept: dict[str, PyTree]
    t: Array


class BatchSteps:
    """The steps of a method on single batches.

    Args:
      method: a rule.
      batch_loss_fn: `(params, batch) -> scalar`.
      h: the step.
      rates_at: the step that the rates of kept states are meant for, h if not given.
      affine: whether to refuse rules that are not affine in the channels, and memories that read
        other memories.
    """

    def __init__(
        self,
        method: RuleMethod,
        batch_loss_fn: BatchLossFn,
        h: Any,
        rates_at: Number | None,
        affine: bool = True,
    ):
        self.method, self.h, self._loss, self._at = method, h, batch_loss_fn, rates_at
        self._channels, self._states = dict(method.channels), dict(method.states)
        self._rates = {n: forgetting(rate, h, rates_at) for n, rate in method.rates}
        self._memories = {
            a: scale_by_recurrence(memory)
            for (a, _), memory in zip(method.channels, method.memories, strict=True)
        }
        self._check(affine)

    def split(self, t: Any, state: PyTree) -> tuple[Slow, tuple[PyTree, dict[str, PyTree]]]:
        """The slow variables of a state, and the leaves that do not move."""
        params, kept = state if self._states else (state, {})
        dynamic, static = partition(params)
        parts = {y: eqx.partition(kept[y], eqx.is_inexact_array) for y in self._states}
        dtype = jnp.result_type(jnp.float32, *jax.tree.leaves(dynamic))
        slow = Slow(dynamic, {y: p[0] for y, p in parts.items()}, jnp.asarray(t, dtype))
        return slow, (static, {y: p[1] for y, p in parts.items()})

    def gradient(self, slow: Slow, static: Any, batch: PyTree) -> PyTree:
        """The gradient of a batch's loss, a pytree like the floating leaves of params."""
        return jax.grad(lambda p: self._loss(combine(p, static[0]), batch))(slow.params)

    def seen(self, slow: Slow, static: Any, batch: PyTree) -> tuple[PyTree, dict[str, PyTree]]:
        """The gradient of a batch, and the input of each channel if no channel reads another."""
        g, taken = self.gradient(slow, static, batch), {}

        def hold(a: str, taken_in: Callable[[], PyTree]) -> PyTree:
            taken[a] = taken_in()
            return taken[a]

        self._walk(slow, static, g, g, hold, batch)
        return g, taken

    def empty(self, slow: Slow, static: Any, batch: PyTree) -> dict[str, Any]:
        """The channels' memories before the first step, by name."""
        shapes = jax.eval_shape(lambda s: self.seen(s, static, batch)[1], slow)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return {a: memory.init(zeros[a]) for a, memory in self._memories.items()}

    def after(
        self, slow: Slow, static: Any, g: PyTree, memories: Mapping[str, Any], batch: PyTree
    ) -> tuple[Slow, dict[str, Any]]:
        """The velocity V of a step with these memories, and the memories after the step."""
        kept = {}

        def hold(a: str, taken_in: Callable[[], PyTree]) -> PyTree:
            held, kept[a] = self._memories[a].update(taken_in(), memories[a])
            return held

        return self._moved(slow, *self._walk(slow, static, g, g, hold, batch)), kept

    def velocity(
        self,
        slow: Slow,
        static: Any,
        g: PyTree,
        held: Mapping[str, PyTree],
        batch: PyTree,
        g_kept: PyTree | None = None,
    ) -> Slow:
        """The velocity V of the slow variables in a step on this batch.

        Args:
          slow: the slow variables.
          static: the leaves that do not move.
          g: the gradient of the batch.
          held: the value that each channel holds.
          batch: the batch.
          g_kept: the gradient that kept states read, `g` if None.
        """
        own = g if g_kept is None else g_kept
        return self._moved(slow, *self._walk(slow, static, g, own, lambda a, _: held[a], batch))

    def _walk(
        self, slow: Slow, static: Any, g: PyTree, g_kept: PyTree, hold: Hold, batch: PyTree
    ) -> tuple[dict[str, Any], dict[str, PyTree]]:
        """The quantities that the rule reads in a step, and the velocities of the kept states.

        Channels and kept states are computed in an order in which each reads only earlier ones.
        """
        h = self.h
        loss = lambda p: self._loss(combine(p, static[0]), batch)  # noqa: E731
        old = {y: eqx.combine(slow.kept[y], static[1][y]) for y in self._states}
        read = {**self._given(slow), "theta": slow.params, "value_fn": loss, "g": g}
        read |= {f"{y}_before": x for y, x in old.items()}
        own = {**read, "g": g_kept}
        moved = {}
        for n in self.method.sequence:
            if n in self._channels:
                of = self._channels[n].of
                own[n] = read[n] = hold(n, lambda of=of: g if of is None else of(read))
                continue
            state = self._states[n]
            phi = state.of({**own, n: old[n], "h": step_meant(state, h, self._at)})
            share = h if state.rate is None else share_taken_in(state.rate, h, self._at)
            still = jnp.zeros_like if state.rate is None else lambda x: x
            gained = jax.tree.map(
                lambda x, z, share=share, still=still: (share * (x - still(z))).astype(z.dtype),
                phi,
                old[n],
            )
            own[n] = read[n] = jax.tree.map(jnp.add, old[n], gained)
            moving = eqx.filter(gained, eqx.is_inexact_array)
            moved[n] = jax.tree.map(lambda x: (x / h).astype(x.dtype), moving)
        return read, moved

    def _moved(self, slow: Slow, read: dict[str, Any], kept: dict[str, PyTree]) -> Slow:
        psi = self.method.psi(read)
        check_direction(psi, slow.params, self.method.name)
        direction = jax.tree.map(lambda x, p: (-x).astype(p.dtype), psi, slow.params)
        return Slow(direction, kept, jnp.ones_like(slow.t))

    def like_state(self, velocity: Slow, state: PyTree) -> PyTree:
        """A velocity as a pytree like the given state, zero at integer arrays."""
        if not self._states:
            return like_params(velocity.params, state)
        params, kept = state
        found = {y: like_params(velocity.kept[y], kept[y]) for y in velocity.kept}
        return like_params(velocity.params, params), found

    def of_state(self, values: Slow) -> PyTree:
        """The params of slow variables, or the pair of params and kept states."""
        return (values.params, values.kept) if self._states else values.params

    def check_affine(self, slow: Slow, static: Any, batch: PyTree) -> None:
        """Raises `UnansweredError` unless V is affine in the channels' values."""
        if not self._channels:
            return
        g, held = self.seen(slow, static, batch)

        def slope(held: Any, g: PyTree, g_kept: PyTree, along: Any) -> PyTree:
            step = lambda a: self.velocity(slow, static, g, a, batch, g_kept).params  # noqa: E731
            return jax.jvp(step, (held,), (along,))[1]

        program = flatten(jax.make_jaxpr(slope)(held, g, g, held))
        names = [a for a in sorted(held) for _ in jax.tree.leaves(held[a])]
        names += ["g"] * len(jax.tree.leaves(g))
        atoms = [a for step in program.before(program.outputs) for a in step.inputs]
        read = {a for a in (*atoms, *program.outputs) if isinstance(a, Variable)}
        bent = [n for n, v in zip(names, program.inputs, strict=False) if v in read]
        if bent:
            what = f"{bent[0]}, which it eliminates" if bent[0] != "g" else "g and a memory"
            raise not_linear(self.method.name, what)

    def _given(self, slow: Slow) -> dict[str, Any]:
        h = self.h
        return {**self._rates, "h": h, "t": slow.t + jnp.asarray(h, slow.t.dtype)}

    def _check(self, affine: bool) -> None:
        method = self.method
        if affine:
            self._check_apart()
        for y, state in method.states:
            if state.rate == 1 and y not in state.of.names:
                raise UnansweredError(
                    f"the state {y} of {method.name} is renewed by every batch: it moves by as "
                    "much as the batches differ, however small h is, and is no variable of a flow: "
                    "do not keep it, igr.from_optax(.., keep=..) without it; in igr.methods.rule "
                    "it is a channel whose memory is exp(-z), the last value"
                )
        if affine and self._channels and method.reads("value_fn"):
            raise UnansweredError(
                f"{method.name} reads the loss itself beside a memory: what it does with batches "
                f"is not known here: {INSTEAD}"
            )

    def _check_apart(self) -> None:
        """Raises `UnansweredError` where a memory reads the value of another one."""
        method = self.method
        for what, parts in (("memory", method.channels), ("state", method.states)):
            for n, part in parts:
                names = () if part.of is None else part.of.names
                beyond = [a for a in names if a in self._channels]
                if beyond:
                    raise UnansweredError(
                        f"the {what} {n} of {method.name} reads the memory {', '.join(beyond)}, "
                        f"which is eliminated: {INSTEAD}"
                    )
