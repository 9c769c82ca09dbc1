"""From a vector field to a trajectory, by diffrax."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Unpack

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jax.core import Tracer
from jaxtyping import Array, Float, PyTree

from igr.checks import Number, check_count, check_number, check_step
from igr.compiled import Traced, compiled, traced
from igr.flows.solving.bounded_steps import BoundedSteps, most_steps
from igr.flows.solving.flow_bar import FlowBar
from igr.flows.solving.options import SolveOptions
from igr.meshes import on_any_mesh
from igr.options import with_defaults
from igr.progress import expected
from igr.progress.late_bar import close, new_bar, under_transformation
from igr.pytrees import combine, partition

Field = Callable[[Any, PyTree, Any], PyTree]


_OUTCOMES = (
    diffrax.RESULTS.successful,
    diffrax.RESULTS.event_occurred,
    diffrax.RESULTS.dt_min_reached,
)
_MOST_STEPS_A_CALL = 500


class FlowStopped(UserWarning):
    """A flow ended before its last save point."""


def flow(
    field: Field,
    params: PyTree,
    t1: Number | Array,
    *,
    t0: Number | Array = 0.0,
    ts: Float[Array | np.ndarray, " n"] | None = None,
    progress: bool | None = None,
    **options: Unpack[SolveOptions],
) -> diffrax.Solution:
    """Integrates a vector field from params; thin over `diffrax.diffeqsolve`.

    Time is that of the modified equations: n steps of a method with step h take t = n h. The memory
    is that of the solver's stages: some 19 copies of params with the default solver, and the saves.

    Args:
      field: `f(t, params, args)`, from `igr.vector_field`, `igr.interpolating_field` or your own.
      params: the start, any pytree with floating leaves; integer and static leaves pass through.
      t1: the end.
      t0: the start's time.
      ts: times at which to save, increasing, within [t0, t1]; only t1 if not given.
      progress: whether to show a bar with the time left; once it has taken some seconds if not
        given. There is none under a transformation such as jit or vmap.
      **options: `SolveOptions`: tolerances `rtol` and `atol`, a first step `dt0`, another `solver`
        than `diffrax.Dopri8()`, `max_steps`, `optimizer_step` for a cost that is bounded, and
        anything else `diffrax.diffeqsolve` takes.

    Returns:
      A `diffrax.Solution`: `ts`, `ys` with the save points as leading axis, `stats`, `result`.
      Save points that were not reached hold inf.

    Raises:
      ValueError: if the times are not finite and increasing, params have no floating leaf, or an
        event is given with an adjoint that allows none.
      TypeError: if there is no option of a name that is given.

    Warns:
      FlowStopped: if the flow left the finite numbers or ran out of steps: it says when. (Not
        under a transformation such as jit or vmap: look at `solution.result` there.)

    >>> import jax.numpy as jnp
    >>> solution = flow(lambda t, x, args: -x, jnp.array([1.0]), 1.0, ts=jnp.array([0.5, 1.0]))
    >>> print(solution.ys[:, 0].round(6))
    [0.606531 0.367879]
    """
    asked = with_defaults(flow, options, solver=diffrax.Dopri8(), max_steps=1_000_000)
    own_event, saves_params = "event" in asked, "saveat" not in asked
    max_steps = check_count("max_steps", asked.pop("max_steps"), 1)
    solver = asked.pop("solver")
    dynamic, static = partition(params)
    t0, t1 = check_number("t0", t0), check_number("t1", t1)
    _check_times(t0, t1, ts)
    rtol, atol, dt0, optimizer_step = (
        check_step(name, asked.pop(name)) if name in asked else None
        for name in ("rtol", "atol", "dt0", "optimizer_step")
    )
    # diffrax gives time and state one dtype: a float64 clock would make float32 params double.
    time_dtype = jnp.result_type(jnp.float32, *(x.dtype for x in jax.tree.leaves(dynamic)))
    if rtol is None:
        double = all(x.dtype == jnp.float64 for x in jax.tree.leaves(dynamic))
        rtol = 1e-10 if double else 1e-5
    settings: dict[str, Any] = {
        "saveat": diffrax.SaveAt(
            t1=ts is None,
            ts=None if ts is None else _on_host(ts, time_dtype),
            controller_state=True,
        ),
        "stepsize_controller": diffrax.PIDController(
            rtol=np.asarray(rtol, time_dtype),
            atol=np.asarray(rtol / 100 if atol is None else atol, time_dtype),
            # Where a solution blows up in finite time the steps shrink without end.
            dtmin=_spacing(t1, time_dtype),
            force_dtmin=False,
            norm=_norm,
        ),
        "event": diffrax.Event(_left_the_finite),
        "throw": False,
    }
    settings |= asked
    if isinstance(settings.get("adjoint"), diffrax.BacksolveAdjoint):
        if own_event:
            raise ValueError(
                "adjoint=BacksolveAdjoint allows no event: choose another adjoint, such as "
                "diffrax.RecursiveCheckpointAdjoint(), or leave event out"
            )
        del settings["event"]  # our own too: a flow may then reach infinity itself
    if optimizer_step is not None:
        adaptive, step = settings["stepsize_controller"], _on_host(optimizer_step, time_dtype)
        settings["stepsize_controller"] = BoundedSteps(adaptive, step)
    t0 = _on_host(t0, time_dtype)

    def dynamic_field(t: Any, y: PyTree, args: Any) -> PyTree:
        tangent = partition(field(t, combine(_cast_like(y, dynamic), static), args))[0]
        return _cast_like(tangent, y)

    state = jax.tree.map(lambda x: x.astype(time_dtype), dynamic)

    start, end = t0, _on_host(t1, time_dtype)
    traced_field = traced(dynamic_field, t0, state, settings.get("args"))
    bar = None
    if progress is not False and "progress_meter" not in settings:
        inputs = (traced_field, state, start, end, dt0, settings, solver)
        if not under_transformation(inputs):
            seconds = _seconds_a_step(traced_field, solver)
            most = float(max_steps)
            if optimizer_step is not None:
                most = min(most, most_steps((float(t1) - float(t0)) / float(optimizer_step)))
            # One that is short for sure has none: no call to the host is compiled for it.
            if progress or most * seconds >= expected.WORTH:
                bar = new_bar("flow", progress)
                every = min(expected.apart(seconds), _MOST_STEPS_A_CALL)
                settings["progress_meter"] = FlowBar(bar, every)
    try:
        solution, ok, outcome = _solved(
            traced_field,
            state,
            solver,
            start,
            end,
            None if dt0 is None else _on_host(dt0, time_dtype),
            settings | {"max_steps": max_steps},
            saves_params=saves_params,
        )
        if bar is not None:
            jax.block_until_ready(outcome)
    finally:
        if bar is not None:
            close(bar)
    _report(solution, ok, outcome, own_event=own_event)
    if solution.ys is not None and saves_params:
        ys = combine(_cast_like(solution.ys, dynamic), static)
        solution = eqx.tree_at(lambda s: s.ys, solution, ys, is_leaf=lambda x: x is None)
    return solution


def _seconds_a_step(field: Traced, solver: diffrax.AbstractSolver) -> float:
    """What a step of the solver is expected to take."""
    tableau = getattr(solver, "tableau", None)
    stages = 1 if tableau is None else getattr(tableau, "num_stages", 1)
    return stages * expected.expected_seconds(field.program.jaxpr)


@compiled
@on_any_mesh(like=1)
def _solved(
    field: Traced,
    state: PyTree,
    solver: diffrax.AbstractSolver,
    t0: Array,
    t1: Array,
    dt0: Array | None,
    options: dict[str, Any],
    *,
    saves_params: bool,
) -> tuple[diffrax.Solution, Array | None, Array]:
    """The solution, which save points it reached, and which of `_OUTCOMES` it came to."""
    term = diffrax.ODETerm(field)
    solution = diffrax.diffeqsolve(term, solver, t0, t1, dt0, state, **options)
    outcome = jnp.stack([solution.result == code for code in _OUTCOMES])
    return solution, reached(solution) if saves_params else None, outcome


def reached(solution: diffrax.Solution) -> Array:
    """Which save points of a solution were reached: a boolean for each time."""
    assert solution.ts is not None
    ok = jnp.isfinite(solution.ts)
    for y in jax.tree.leaves(eqx.filter(solution.ys, eqx.is_inexact_array)):
        ok = ok & jnp.all(jnp.isfinite(y), axis=tuple(range(1, y.ndim)))
    return ok


def _on_host(values: Any, dtype: Any) -> Any:
    """Times as an argument of the program, made without one of their own unless traced."""
    return jnp.asarray(values, dtype) if isinstance(values, Tracer) else np.asarray(values, dtype)


def _spacing(t1: Any, dtype: Any) -> Any:
    """A few times the spacing of the numbers of a dtype near t1."""
    if isinstance(t1, Tracer):
        return 16 * jnp.finfo(dtype).eps * jnp.abs(jnp.asarray(t1, dtype))
    return np.asarray(16 * float(jnp.finfo(dtype).eps) * abs(float(t1)), dtype)


def _cast_like(values: PyTree, like: PyTree) -> PyTree:
    return jax.tree.map(lambda x, y: x.astype(y.dtype), values, like)


def _norm(errors: PyTree) -> Array:
    """The root mean square, large where it is not a number.

    A trial step may leave the domain of a field, such as that of a root. Its error is then not a
    number, nor would be any step size worked out from it; this way a smaller step is tried.
    """
    size = optx.rms_norm(errors)
    return jnp.where(jnp.isnan(size), jnp.asarray(1e10, size.dtype), size)


def _left_the_finite(t: Any, y: PyTree, args: Any, **kwargs: Any) -> Array:
    """Stops at numbers so large that their square is not a number any more."""
    del t, args, kwargs
    leaves = jax.tree.leaves(y)
    return ~jnp.all(
        jnp.stack([jnp.all(jnp.abs(x) < jnp.sqrt(jnp.finfo(x.dtype).max) * 1e-3) for x in leaves])
    )


def _report(
    solution: diffrax.Solution, ok: Array | None, outcome: Array, *, own_event: bool
) -> None:
    if isinstance(outcome, Tracer) or solution.ts is None:
        return
    successful, left, shrank = np.asarray(outcome)
    if successful or (left and own_event):  # an event of the user's is where a flow is to stop
        return
    times = np.asarray(solution.ts)
    times = times[np.isfinite(times) if ok is None else np.asarray(ok)]
    last = (
        f"the last save point reached is t = {times[-1]:.6g}"
        if times.size
        else ("no save point was reached")
    )
    if left:
        why = "it left the finite numbers"
    elif shrank:
        why = "its steps shrank to nothing, as where a solution blows up"
    else:
        why = f"the solver gave up: {solution.result}"
    warnings.warn(f"the flow stopped early, {why}; {last}", FlowStopped, stacklevel=3)


def _check_times(t0: Any, t1: Any, ts: Any) -> None:
    if any(isinstance(t, Tracer) for t in (t0, t1, ts)):
        return
    if not (np.isfinite(t0) and np.isfinite(t1) and float(t0) < float(t1)):
        raise ValueError(f"t0 and t1 must be finite with t0 < t1; got t0 = {t0}, t1 = {t1}.")
    if ts is not None:
        times = np.asarray(ts)
        if times.ndim != 1 or not np.all(np.isfinite(times)) or np.any(np.diff(times) < 0):
            raise ValueError("ts must be a vector of finite, increasing times")
        slack = 1e-12 * abs(float(t1))
        if times.size and (times[0] < float(t0) - slack or times[-1] > float(t1) + slack):
            raise ValueError(
                f"ts must lie within [t0, t1] = [{t0}, {t1}]; got {times[0]} to {times[-1]}."
            )
