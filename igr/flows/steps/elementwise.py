"""One step of a method with an elementwise rule, as an optax transformation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import sympy
from jaxtyping import Array, Float, PyTree

from igr.backward_error.methods.linear import LinearMethod
from igr.backward_error.response import GradientResponse, steady_channels
from igr.backward_error.terms.algebra import THETA, G, T
from igr.backward_error.terms.elementwise import ElementwiseMethod, Kept, before
from igr.checks import Number
from igr.flows import kinds
from igr.flows.fields.lambdify import LeafFunctions
from igr.flows.steps.ema_decay import forgetting, share_taken_in, time_of_step
from igr.flows.steps.linear import scale_by_recurrence
from igr.shown import short, table


@kinds.step_of.register
def elementwise_step(
    method: ElementwiseMethod, h: Number | Array, *, rates_at: Number | None = None
) -> optax.GradientTransformation:
    """The optax transformation with updates -h Psi(a_1, .., a_r, y, theta), an elementwise rule.

    Every channel and kept state starts from zero, or from its `init`.

    Args:
      method: without open symbols.
      h: the step.
      rates_at: the step that the rates of kept states are meant for, h if not given. They are
        fixed per unit of time.

    Returns:
      A transformation whose `update` needs `params`, and whose state has the kept states by name
      under `kept`, updated before the rule reads them.
    """
    functions = LeafFunctions()
    memories = {
        a: scale_by_recurrence(memory)
        for (a, _), memory in zip(method.channels, method.memories, strict=True)
    }

    def init(params: PyTree) -> ElementwiseState:
        return ElementwiseState(
            count=jnp.zeros([], jnp.result_type(float)),
            channels={str(a): memory.init(params) for a, memory in memories.items()},
            kept={
                str(y): functions(state.init, {THETA: params}, {}, params)
                for y, state in method.states
            },
        )

    def update(updates: PyTree, state: ElementwiseState, params: PyTree | None = None):
        if params is None:
            raise ValueError(
                f"{method.name} reads the params: update needs them, as in "
                "optimizer.update(grads, state, params)"
            )
        read: dict[sympy.Symbol, PyTree] = {THETA: params, G: updates}
        scalars = {symbol: forgetting(rate, h, rates_at) for symbol, rate in method.rates}
        scalars[T] = time_of_step(state.count, h)
        channels, kept = {}, {}
        for y, _ in method.states:
            read[method.before(y)] = state.kept[str(y)]
        for name, part in method.sequence:
            phi = functions(part.of, read, scalars, updates)
            if name in memories:
                read[name], channels[str(name)] = memories[name].update(
                    phi, state.channels[str(name)]
                )
            else:
                assert isinstance(part, Kept)
                read[name] = kept[str(name)] = _moved(
                    state.kept[str(name)], phi, part.rate, h, rates_at
                )
        psi = functions(method.rule, read, scalars, updates)
        step = jax.tree.map(lambda x: (-h * x).astype(x.dtype), psi)
        return step, ElementwiseState(state.count + 1, channels, kept)

    return optax.GradientTransformation(init, update)


def _moved(old: PyTree, phi: PyTree, rate: Any, h: Any, rates_at: Number | None) -> PyTree:
    """The kept state after its update."""
    if rate is None:
        return jax.tree.map(lambda y, x: (y + h * x).astype(y.dtype), old, phi)
    share = share_taken_in(rate, h, rates_at)
    return jax.tree.map(lambda y, x: (y + share * (x - y)).astype(y.dtype), old, phi)


class ElementwiseState(NamedTuple):
    """The optax state of a method with an elementwise rule.

    Attributes:
      count: the steps done; floating, so that a run may start between two steps' times.
      channels: the memory of each channel.
      kept: the kept states, each like params.
    """

    count: Float[Array, ""]
    channels: dict[str, PyTree]
    kept: dict[str, PyTree]

    __repr__ = short
    _repr_html_ = table


@kinds.shares_of.register
def _(
    method: ElementwiseMethod, h: Number | Array, rates_at: Number | None = None
) -> dict[str, float | Array]:
    return {
        str(y): share_taken_in(1 if kept.rate is None else kept.rate, h, rates_at)
        for y, kept in method.states
    }


@kinds.never_negative_of.register
def _(method: ElementwiseMethod) -> frozenset[str]:
    # An average of what is not negative is not: of squares, and of other such averages.
    states = {y: (state.of, state.init) for y, state in method.states}
    channels = {
        a: (channel.of,)
        for (a, channel), memory in zip(method.channels, method.memories, strict=True)
        if _weighs_nothing_negatively(memory)
    }
    made_of = states | channels
    found = set(made_of)
    while True:
        known = {s: sympy.Dummy(nonnegative=True) for y in found for s in (y, before(y))}
        left = {y for y in found if all(_is_nonnegative(x, known) for x in made_of[y])}
        if left == found:
            return frozenset(str(y) for y in found & states.keys())
        found = left


def _is_nonnegative(expression: sympy.Expr, known: dict[sympy.Symbol, sympy.Symbol]) -> bool:
    """Whether an expression is nonnegative for all real values of its symbols."""
    real = {s: sympy.Dummy(real=True) for s in expression.free_symbols}
    return bool(expression.xreplace({**real, T: T, **known}).is_nonnegative)


def _weighs_nothing_negatively(memory: LinearMethod) -> bool:
    """Whether a recurrence's output is sure to be nonnegative if its input is."""
    b, a = memory.recurrence
    return all(x >= 0 for x in b) and all(x <= 0 for x in a[1:])


@kinds.state_at_rest.register
def _(
    method: ElementwiseMethod,
    gradient: PyTree,
    params: PyTree,
    h: Number | Array,
    *,
    rates_at: Number | None,
    count: Array,
    value_fn: Callable[[PyTree], Array] | None = None,
) -> dict[str, PyTree]:
    del value_fn
    # As many steps of the size the rates are meant for as take the same time.
    at = h if rates_at is None else rates_at
    functions = LeafFunctions()
    steady = dict(steady_channels(method))
    states = dict(method.states)
    forgets = {symbol: forgetting(rate, h, rates_at) for symbol, rate in method.rates}

    def step(n: Array, kept: dict[str, PyTree]) -> dict[str, PyTree]:
        read = {G: gradient, THETA: params}
        read |= {method.before(y): kept[str(y)] for y in states}
        scalars = {**forgets, T: (n + 1) * at}
        after = {}
        for name, part in method.sequence:
            phi = functions(steady.get(name, part.of), read, scalars, params)
            if name in steady:
                read[name] = phi
            else:
                read[name] = after[str(name)] = _moved(
                    kept[str(name)], phi, states[name].rate, at, rates_at
                )
        return after

    start = {
        str(y): functions(state.init, {THETA: params}, {}, params) for y, state in method.states
    }
    steps = jnp.round(count * h / at).astype(int)
    return jax.lax.fori_loop(0, steps, step, start) if start else {}


@kinds.preconditioner_of.register
def _(response: GradientResponse, h: Number | Array) -> Callable[..., PyTree]:
    functions = LeafFunctions()
    scalars: dict[sympy.Symbol, Any] = {symbol: float(rate) / h for symbol, rate in response.rates}

    def preconditioner(
        gradient: PyTree, params: PyTree, kept: dict[str, PyTree], t: Number | Array
    ) -> PyTree:
        read = {THETA: params, G: gradient}
        for y, value in kept.items():
            read |= {sympy.Symbol(y): value, before(y): value}
        at = {**scalars, T: t + h}  # the rule reads the states after their update
        for channel, steady in response.steady:
            read[channel] = functions(steady, read, at, params)
        return functions(response.preconditioner, read, at, params)

    return preconditioner
