"""One step of a rule given as a function, as an optax transformation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from igr.backward_error.rules.rule import RuleMethod, RuleState
from igr.checks import Number
from igr.flows import kinds
from igr.flows.steps.ema_decay import forgetting, share_taken_in, time_of_step
from igr.flows.steps.linear import scale_by_recurrence
from igr.pytrees import same_shapes, shapes
from igr.shown import short, table


class RuleStepState(NamedTuple):
    """The optax state of a method with a rule.

    Attributes:
      count: the steps done; floating, so that a run may start between two steps' times.
      channels: the memory of each channel.
      kept: the kept states.
    """

    count: Float[Array, ""]
    channels: dict[str, PyTree]
    kept: dict[str, PyTree]

    __repr__ = short
    _repr_html_ = table


@kinds.step_of.register
def _(
    method: RuleMethod, h: Number | Array, *, rates_at: Number | None = None
) -> optax.GradientTransformation:
    return rule_step(method, h, rates_at=rates_at)


@kinds.shares_of.register
def _(
    method: RuleMethod, h: Number | Array, rates_at: Number | None = None
) -> dict[str, float | Array]:
    shares = {y: state.rate for y, state in method.states if state.rate is not None}
    return {y: share_taken_in(rate, h, rates_at) for y, rate in shares.items()}


def rule_step(
    method: RuleMethod, h: Number | Array, *, rates_at: Number | None = None
) -> optax.GradientTransformationExtraArgs:
    """The optax transformation with updates -h Psi(a_1, .., a_r, y, theta) of a rule.

    Every channel starts from zero, every kept state from its `init`.

    Args:
      method: without open symbols.
      h: the step.
      rates_at: the step that the rates of kept states are meant for, h if not given. They are
        fixed per unit of time.

    Returns:
      A transformation whose `update` needs `params`, and the extra argument `value_fn` where a
      function of the method reads it. Its state has the kept states by name under `kept`.
    """
    memories = {
        a: scale_by_recurrence(memory)
        for (a, _), memory in zip(method.channels, method.memories, strict=True)
    }
    channels, states = dict(method.channels), dict(method.states)
    reads_loss = method.reads("value_fn")

    def given(gradient: PyTree, params: PyTree, count: Any, value_fn: Any) -> dict[str, Any]:
        rates = {n: forgetting(rate, h, rates_at) for n, rate in method.rates}
        fixed = {"h": h, "value_fn": value_fn, "t": time_of_step(count, h)}
        return {**rates, **fixed, "g": gradient, "theta": params}

    def moved(name: str, old: PyTree, read: dict[str, Any]) -> PyTree:
        """A kept state after its update."""
        state = states[name]
        phi = state.of({**read, name: old, "h": step_meant(state, h, rates_at)})
        if state.rate is None:
            return jax.tree.map(lambda y, x: (y + h * x).astype(y.dtype), old, phi)
        share = share_taken_in(state.rate, h, rates_at)
        return jax.tree.map(lambda y, x: (y + share * (x - y)).astype(y.dtype), old, phi)

    def init(params: PyTree) -> RuleStepState:
        kept = starting_states(method, params)

        def remembered(params: PyTree) -> dict[str, PyTree]:
            """The input of each channel at params, used for its structure alone."""
            read = given(params, params, 0.0, lambda p: optax.tree.sum(p))
            read |= {f"{y}_before": old for y, old in kept.items()}
            found: dict[str, PyTree] = {}
            for n in method.sequence:
                if n in states:
                    read[n] = kept[n]
                    continue
                phi = channels[n].of
                found[n] = read[n] = params if phi is None else phi(read)
            return found

        shapes = jax.eval_shape(remembered, params)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        count = jnp.zeros([], jnp.result_type(float))
        return RuleStepState(count, {a: m.init(zeros[a]) for a, m in memories.items()}, kept)

    def update(
        updates: PyTree,
        state: RuleStepState,
        params: PyTree | None = None,
        *,
        value_fn: Callable[[PyTree], Array] | None = None,
        **extra_args: Any,
    ) -> tuple[PyTree, RuleStepState]:
        del extra_args
        if params is None or (reads_loss and value_fn is None):
            needed = "params and value_fn" if reads_loss else "params"
            raise ValueError(
                f"{method.name} reads {needed}: update needs them, as in optimizer.update(grads, "
                f"state, params{', value_fn=value_fn' if reads_loss else ''})"
            )
        read = given(updates, params, state.count, value_fn)
        read |= {f"{y}_before": old for y, old in state.kept.items()}
        held, kept = {}, {}
        for n in method.sequence:
            if n in states:
                read[n] = kept[n] = moved(n, state.kept[n], read)
                continue
            phi = channels[n].of
            what = updates if phi is None else phi(read)
            read[n], held[n] = memories[n].update(what, state.channels[n])
        psi = method.psi(read)
        check_direction(psi, updates, method.name)
        step = jax.tree.map(lambda x, g: (-h * x).astype(g.dtype), psi, updates)
        return step, RuleStepState(state.count + 1, held, kept)

    return optax.GradientTransformationExtraArgs(init, update)


def starting_states(method: RuleMethod, params: PyTree) -> dict[str, PyTree]:
    """The kept states before the first step, by name."""
    return {
        y: optax.tree.zeros_like(params) if s.init is None else s.init(params)
        for y, s in method.states
    }


@kinds.state_at_rest.register
def _(
    method: RuleMethod,
    gradient: PyTree,
    params: PyTree,
    h: Number | Array,
    *,
    rates_at: Number | None,
    count: Array,
    value_fn: Callable[[PyTree], Array] | None = None,
) -> dict[str, PyTree]:
    # As many steps of the size the rates are meant for as take the same time.
    at = h if rates_at is None else rates_at
    step = rule_step(method, at)
    steps = jnp.round(count * h / at).astype(int)

    def again(_: Array, state: RuleStepState) -> RuleStepState:
        return step.update(gradient, state, params, value_fn=value_fn)[1]

    return jax.lax.fori_loop(0, steps, again, step.init(params)).kept


def check_direction(psi: PyTree, params: PyTree, name: str) -> None:
    """Raises `ValueError` unless a rule's value has the structure and shapes of params."""
    if not same_shapes(psi, params):
        raise ValueError(
            f"the rule of {name} must return a direction for params, of their structure and shapes "
            f"{shapes(params)}; got {shapes(psi)}."
        )


def step_meant(state: RuleState, h: Number | Array, rates_at: Number | Array | None) -> Any:
    """The step h that a kept state's function reads: `rates_at` where it has a rate."""
    return h if rates_at is None or state.rate is None else rates_at
