"""Runs the real optimizer as one scan on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from igr.backward_error.protocols import Method
from igr.checks import Count, Number, check_count, check_step
from igr.compiled import Traced, compiled, number_as_array, traced
from igr.curvature import vectors
from igr.flows import kinds
from igr.flows.runnable import check_start
from igr.progress.expected import expected_seconds
from igr.progress.late_bar import (
    Ticking,
    between_or_within,
    scan,
    ticking,
    under_transformation,
)
from igr.pytrees import combine, partition
from igr.shown import short, table

ValueFn = Callable[[PyTree], Array]


class Trajectory(NamedTuple):
    """The records of a run, r in all.

    Attributes:
      step: the steps done at each record: 0, every `record_every`, and the last.
      params: params at each record, every floating leaf with a leading axis r.
      value: the loss at each record.
      gradient_norm: |grad E| at each record.
      state: the optimizer's state after the last step.
      observed: what `observe` returned at each record, with a leading axis r; None without it.
    """

    step: Int[Array, " r"]
    params: PyTree
    value: Float[Array, " r"]
    gradient_norm: Float[Array, " r"]
    state: Any
    observed: Any = None

    __repr__ = short
    _repr_html_ = table

    @property
    def last(self) -> PyTree:
        """The params after the last step."""
        stacked, static = eqx.partition(self.params, eqx.is_inexact_array)
        return combine(jax.tree.map(lambda x: x[-1], stacked), static)


def run(
    optimizer: optax.GradientTransformation,
    value_fn: ValueFn,
    params: PyTree,
    steps: Count,
    *,
    record_every: Count = 1,
    state: Any = None,
    observe: Callable[[PyTree, Any], PyTree] | None = None,
    progress: bool | None = None,
) -> Trajectory:
    """Runs an optax optimizer on the full loss, as one scan on the device.

    Args:
      optimizer: any optax transformation. One that takes extra arguments gets `value`, `grad`
        and `value_fn`.
      value_fn: the loss E, `params -> scalar`. It is traced at every call, so that what it reads
        may change between calls; arrays it closes over, and the numbers in it, are arguments of the
        compiled program: a second run of the same shapes compiles nothing.
      params: where to start; any pytree with floating leaves. Integer and static leaves stay.
      steps: how many steps, at least 1.
      record_every: the number of steps from one record to the next. Memory: steps / record_every
        copies of params, twice over when the last is appended.
      state: an optimizer state to go on from; `optimizer.init(params)` if not given.
      observe: `(params, state) -> arrays` to record too, such as
        `lambda params, state: optax.tree.get(state, "nu")`.
      progress: whether to show a bar with the time left; if not given, only after some seconds.
        There is none under a transformation such as jit or vmap.

    Returns:
      A `Trajectory` with a record at 0, every `record_every` steps, and the last.

    Raises:
      ValueError: if the loss is not a finite scalar at the start, `steps` or `record_every` is
        less than 1, or params have no floating leaf.

    >>> import jax.numpy as jnp
    >>> trajectory = run(optax.sgd(0.5), lambda x: jnp.sum(x**2) / 2, jnp.ones(1), steps=4,
    ...                  record_every=2)
    >>> print(trajectory.step, trajectory.params[:, 0])
    [0 2 4] [1.     0.25   0.0625]
    """
    steps = check_count("steps", steps, 1)
    record_every = check_count("record_every", record_every, 1)
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(f"optimizer must be an optax.GradientTransformation; got {optimizer!r}.")
    loss = check_start(value_fn, params)
    dynamic, static = partition(params)
    if observe is not None and not callable(observe):
        raise TypeError(f"observe must be a function of params and state; got {observe!r}.")
    initial = None
    if state is None:
        initial = traced(optimizer.init, dynamic)
        example = initial.shapes
    else:
        state = example = jax.tree.map(number_as_array, state)
    # The loss is traced already, and its gradient is taken where the program is compiled: only the
    # update, which may read anything, is traced in every call.
    update = traced(update_of(optimizer), loss, dynamic, example, loss.shapes, dynamic)
    watch = None
    if observe is not None:
        watch = traced(lambda p, s: observe(combine(p, static), s), dynamic, example)
    bar = None
    if not under_transformation(loss, dynamic, state, update, initial, watch):
        value, rest = (expected_seconds(f.program.jaxpr) for f in (loss, update))
        bar = ticking("run", progress, steps, 3 * value + rest)  # a gradient is some three losses
    records, final_state = _scan(
        update, loss, dynamic, state, initial, watch, steps, record_every, bar
    )
    stacked, value, gradient_norm, observed = records
    done = np.arange(0, steps, record_every)
    return Trajectory(
        step=jnp.asarray(np.append(done, steps)),
        params=combine(stacked, static),
        value=value,
        gradient_norm=gradient_norm,
        state=final_state,
        observed=observed,
    )


def update_of(optimizer: optax.GradientTransformation) -> Callable[..., tuple[PyTree, Any]]:
    """One update as `(loss, params, state, value, gradient) -> params, state`; see `step_of`."""
    update = optax.with_extra_args_support(optimizer).update

    def updated(
        loss: ValueFn, params: PyTree, state: Any, value: Array, gradient: PyTree
    ) -> tuple[PyTree, Any]:
        updates, state = update(gradient, state, params, value=value, grad=gradient, value_fn=loss)
        return optax.apply_updates(params, updates), state

    return updated


def step_of(optimizer: optax.GradientTransformation) -> Callable[..., Any]:
    """One step as `(loss, params, state) -> params, state, loss and gradient norm before it`.

    Args:
      optimizer: any optax transformation; one that takes extra arguments gets `value`, `grad` and
        `value_fn`.
    """
    update = update_of(optimizer)

    def step(loss: ValueFn, params: PyTree, state: Any) -> tuple[PyTree, Any, Array, Array]:
        value, gradient = jax.value_and_grad(lambda p: loss(p))(params)
        return *update(loss, params, state, value, gradient), value, vectors.norm(gradient)

    return step


@compiled
def _scan(
    update: Traced,
    loss: Traced,
    params: PyTree,
    state: Any,
    initial: Traced | None,
    observe: Traced | None,
    steps: int,
    record_every: int,
    bar: Ticking | None,
):
    def watch(params: PyTree, state: Any) -> PyTree:
        return None if observe is None else observe(params, state)

    def step(carry, _):
        value, gradient = jax.value_and_grad(lambda p: loss(p))(carry[0])
        return update(loss, *carry, value, gradient), (value, vectors.norm(gradient))

    # The bar moves between records, or where these are far apart between steps.
    many, few = between_or_within(bar, record_every)

    def record(carry, first, length: int):
        # The first step of a stretch has the loss and gradient of the record in hand.
        before, observed = carry[0], watch(*carry)
        carry, (value, norm) = step(carry, None)
        if length > 1:
            alone = lambda c, x: (step(c, x)[0], None)  # noqa: E731
            carry, _ = scan(few, alone, carry, None, length - 1, first=first)
        return carry, (before, value, norm, observed)

    carry = (params, state if initial is None else initial(params))
    whole, rest = divmod(steps, record_every)
    begun = None if few is None else record_every * jnp.arange(whole, dtype=jnp.int32)
    carry, records = scan(
        many, lambda c, n: record(c, n, record_every), carry, begun, whole, size=record_every
    )
    if rest:
        carry, partial = record(carry, whole * record_every, rest)
        records = _append(records, partial)
    value, gradient = jax.value_and_grad(lambda p: loss(p))(carry[0])
    if bar is not None:
        bar.finish(value)
    last = (carry[0], value, vectors.norm(gradient), watch(*carry))
    records = _append(records, last)
    return records, carry[1]


def _append(records: PyTree, last: PyTree) -> PyTree:
    return jax.tree.map(lambda xs, x: jnp.concatenate([xs, x[None]]), records, last)


def optimizer_of(method: Method, learning_rate: Number | Array) -> optax.GradientTransformation:
    """The optax transformation that a method describes.

    A linear method runs its recurrence d[n] = sum_i b_i g[n-i] - sum_i a_i d[n-i] from a memory of
    zeros, as optax starts its traces: it equals `optax.sgd(learning_rate, momentum)` for
    `heavy_ball(momentum)`, and so on. A method with an elementwise rule fills its channels and kept
    states from zero too; it differs from the real optimizer by what the description leaves out,
    such as Adam's bias correction of its first moment, until the start-up is over. A Runge-Kutta
    method evaluates its stages on `value_fn`, an extra argument of `update` that `run` provides.

    Args:
      method: from `igr.methods`, without open symbols.
      learning_rate: the step h.

    Returns:
      An `optax.GradientTransformation`, learning rate included.

    Raises:
      ValueError: if the method has open symbols or no finite memory.
    """
    learning_rate = check_step("learning_rate", learning_rate)
    kinds.check_runnable(method)
    return kinds.step_of(method, learning_rate)
