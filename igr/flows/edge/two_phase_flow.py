"""The flow of a run's two phases, in fixed steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PyTree

from igr.checks import Number, check_count, check_step
from igr.compiled import compiled
from igr.curvature import hessian_product
from igr.curvature.tracking import follow_eigenpairs
from igr.curvature.vectors import cast_like, widened
from igr.flows.edge.march import count_steps, in_single, march, only_arrays, runge_kutta_4
from igr.flows.edge.two_phase import TwoPhases, two_phase_field
from igr.flows.runnable import check_start
from igr.meshes import on_any_mesh
from igr.pytrees import combine, partition
from igr.shown import short, table


class TwoPhaseFlow(NamedTuple):
    """A two-phase flow at r recorded times.

    Attributes:
      ts: the times, (r,); the first is h, where the second point of the run lies.
      ys: the middle a, params with a leading axis r, to lay beside the run's `midpoints`.
      swing: b, like the floating leaves of params with a leading axis r.
      amplitude: |b|, that of the oscillation, (r,).
      value: [E(a + b) + E(a - b)]/2, the loss averaged over two steps of the run, (r,).
      eigenvalues: the largest of the Hessian at a, (r, k); k is 0 without `directions`.
      reached: which records are finite, (r,).
    """

    ts: Float[Array, " r"]
    ys: PyTree
    swing: PyTree
    amplitude: Float[Array, " r"]
    value: Float[Array, " r"]
    eigenvalues: Float[Array, "r k"]
    reached: Bool[Array, " r"]

    __repr__ = short
    _repr_html_ = table


def two_phase_flow(
    method: Any,
    value_fn: Callable[[PyTree], Array],
    params: PyTree,
    h: Number,
    t1: Number,
    *,
    order: int = 1,
    directions: int | None = None,
    state: Any = None,
    record_every: int | None = None,
    progress: bool | None = None,
) -> TwoPhaseFlow:
    """Follows the two phases of a run from its first three points.

    A step of h is order + 1 steps of the classical Runge-Kutta method on `two_phase_field`, that
    is 8 (order + 1)^2 gradients (32 for order 1), and with directions some 1.4 * 2 k + 2 more for
    the round of `follow_eigenpairs`. Its programs hold some 17 copies of params, 9 more for each
    vector of that size that the optimizer remembers, and with directions 6 k more;
    records are kept by the host.

    Args:
      method: as in `two_phase_field`.
      value_fn: the loss E, `params -> scalar`.
      params: where the run stands at time 0.
      h: the learning rate.
      t1: the end, a whole number of steps of h, at least two.
      order: as in `two_phase_field`.
      directions: as in `two_phase_field`.
      state: the optimizer's state at params; that of a start if not given.
      record_every: steps of h from one record to the next; by default for about 100 records.
      progress: whether to show a bar with the time left; once it has taken some seconds if not
        given.

    Returns:
      A `TwoPhaseFlow`. It is for you to see in `reached` whether it stayed finite.

    Raises:
      ValueError: as `two_phase_field`; if t1 is not a whole number of steps; if the loss is not a
        finite scalar at params.

    >>> from igr.backward_error import methods
    >>> quartic = lambda x: jnp.sum(x**2 - 2 * x**4 / 4 + x**6 / 6)
    >>> sol = two_phase_flow(methods.gradient_descent(), quartic, jnp.array([0.1]), 1.05, 630.0)
    >>> print(abs(sol.ys[-1]).round(3), sol.amplitude[-1].round(4))  # h g(b) = 2 b
    [0.] 0.2209
    """
    h = check_step("h", h)
    steps = count_steps(h, t1)
    if steps < 2:
        raise ValueError(f"t1 must be at least two steps of h = {h}: the phases start at one")
    two_phase_field(method, value_fn, h, order, directions)  # for what it refuses
    loss = check_start(value_fn, params)
    dynamic, static = partition(params)
    setting = (method, order, directions)
    step_size = jnp.asarray(h)
    loss, wide = in_single(loss, dynamic)
    if state is not None:
        state = jax.tree.map(_in_single, state)
    start = _start(loss, wide, step_size, state, setting)

    def advance(phases: TwoPhases, count: Array) -> tuple[TwoPhases, Any]:
        return _advance(loss, phases, step_size, count, setting)

    done, records = march(advance, start, steps - 1, record_every, progress, "two-phase flow")
    ys, swing, value, eigenvalues = records
    amplitude = jax.vmap(optax.tree.norm)(swing)
    return TwoPhaseFlow(
        ts=jnp.asarray((1 + done) * float(h)),
        ys=combine(cast_like(ys, dynamic), static),
        swing=swing,
        amplitude=amplitude,
        value=value,
        eigenvalues=eigenvalues,
        reached=jnp.isfinite(amplitude) & jnp.isfinite(value),
    )


def _in_single(x: Any) -> Any:
    half = isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.floating)
    return widened(x) if half else x


@compiled
@on_any_mesh(like=1)
def _start(loss: Any, params: PyTree, h: Array, state: Any, setting: Any) -> TwoPhases:
    method, order, directions = setting
    field = two_phase_field(method, loss, h, order, directions)
    return field.confined(field.start(params, state))


@compiled
@on_any_mesh(like=lambda loss, phases, *_: phases.params)
def _advance(
    loss: Any, phases: TwoPhases, h: Array, count: Array, setting: Any
) -> tuple[TwoPhases, Any]:
    method, order, directions = setting
    field = two_phase_field(method, loss, h, order, directions)
    substeps = check_count("order", order, 0) + 1

    def step(_: Any, phases: TwoPhases) -> TwoPhases:
        followed = None
        if directions is not None:
            followed = field.followed(phases)
            phases = field.confined(phases._replace(directions=followed))
        # Order p multiplies the exponent of a mode that flips by about p + 1.
        moved = runge_kutta_4(
            lambda y: field.within(y, followed),
            phases._replace(directions=None),
            h / substeps,
            substeps,
        )
        return moved._replace(directions=followed)

    phases = jax.lax.fori_loop(0, count, step, phases)
    middle, swing = phases.params, phases.swing
    value = (
        loss(jax.tree.map(jnp.add, middle, swing)) + loss(jax.tree.map(jnp.subtract, middle, swing))
    ) / 2
    eigenvalues = jnp.zeros(0, value.dtype)
    if directions is not None:
        product = hessian_product(lambda p: loss(p), middle)
        eigenvalues = follow_eigenpairs(product, middle, phases.directions).values
    return phases, (only_arrays(middle), swing, value, eigenvalues)
