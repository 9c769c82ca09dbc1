"""Compares one run on a whole loss with its flows."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from igr.backward_error import modified_equation
from igr.backward_error.protocols import Equation, Method
from igr.checks import Number, check_count
from igr.compiled import Traced, traced
from igr.flows.certifying.described import check_described
from igr.flows.comparison import past_the_edge
from igr.flows.comparison.asked import Asked
from igr.flows.comparison.carrying import Carried, never_negative, not_below_zero, with_memory
from igr.flows.comparison.filling import (
    StartUp,
    check_motion,
    kept_states,
    said,
    start_up_of,
    steps_to_fill,
)
from igr.flows.comparison.follow import (
    Followed,
    distances,
    each,
    over_kinks,
    reason,
    rounding_floor,
    saved,
    saved_after,
    solver_options,
    unreached,
)
from igr.flows.comparison.names import PAST_THE_EDGE, carries_memory, remembers
from igr.flows.comparison.result import LARGEST_REMAINDER, Comparison, FlowName
from igr.flows.edge.centre import central_rule
from igr.flows.fields.by_differences.displaced import displaced_field
from igr.flows.fields.from_steps.interpolation import interpolating_field
from igr.flows.fields.vector_field import vector_field
from igr.flows.run import optimizer_of, run, step_of
from igr.flows.runnable import check_start, time_like
from igr.flows.start_up import flow_while_filling, has_first_steps, shifted_start
from igr.flows.validity import corrections_along, sharpness_along, unexplained
from igr.pytrees import combine, partition


class _Run(NamedTuple):
    """A run after its burn-in, and the initial state of its flows."""

    method: Method
    optimizer: optax.GradientTransformation
    loss: Traced
    one_step: Traced
    params: PyTree
    state: Any
    kept: dict[str, PyTree]
    memory: Any  # of the description, where a flow carries it
    before: int  # steps of burn-in
    start_up: StartUp
    filling: int


def compare_run(asked: Asked) -> Comparison:
    """Runs the optimizer, follows each flow, and returns their comparison."""
    h, names, method = asked.learning_rate, asked.flows, asked.method
    steps = check_count("steps", asked.steps, 1)
    every = check_count("record_every", asked.record_every or -(-steps // 100), 1)
    edge = [p for p in names if p in PAST_THE_EDGE]
    directions = past_the_edge.directions_of(asked.directions, asked.params) if edge else 0
    the = _begun(asked)
    dynamic, static = partition(the.params)
    failures: dict[Any, str] = {}

    def observe(params: PyTree, state: Any) -> tuple[Any, Any, Any, Any]:
        p = partition(params)[0]
        seen, later = None, None
        if edge:
            seen, after, later = past_the_edge.swing(the.loss, the.one_step, p, state)
            later = past_the_edge.second_moment(later) if "central" in edge else None
        else:
            after = the.one_step(the.loss, p, state)[0]
        rest = None if "remainder" in failures else unexplained(the.loss, p, after)
        return kept_states(method.kept, state), rest, seen, later

    def real_run() -> Any:
        return run(
            the.optimizer,
            asked.value_fn,
            the.params,
            steps,
            record_every=every,
            state=the.state,
            observe=observe,
            progress=asked.progress,
        )

    try:
        discrete = real_run()
    except Warning:
        raise
    except Exception as error:  # as where a loss lacks a second derivative
        failures["remainder"] = reason(error)
        discrete = real_run()
    seen, remainder, swing, moments = discrete.observed
    discrete = discrete._replace(observed=seen)
    done = np.asarray(discrete.step)
    # Past the edge the run is looked at in the middle of its swing, about the step after a record.
    step = done + bool(edge)
    times, origin = step * h, the.before * h
    equation = modified_equation(method, max([p for p in names if isinstance(p, int)] + [1]))
    options = solver_options(h, asked.solve, asked.progress)
    if remainder is not None and np.any(np.asarray(remainder) > LARGEST_REMAINDER):
        options = over_kinks(options, asked.solve, h, steps)
    unsigned = never_negative(method, seen)
    carried = the.memory is not None
    smooth = [p for p in names if p not in PAST_THE_EDGE and not (carried and p == "differences")]
    chosen, broken = _one_program(smooth, equation, the, h, unsigned)
    failures |= broken
    recorded = partition(discrete.params)[0] if swing is None else swing.middle

    def follow(p: FlowName) -> tuple[Followed, dict[str, PyTree], Any]:
        if p == "two-phase":
            found = past_the_edge.two_phase(
                method, asked.value_fn, the.params, the.state, h, steps, asked.directions,
                {"record_every": every, "progress": asked.progress},
            )  # fmt: skip
            return found.followed, found.kept, found
        if p == "central":
            middle = combine(jax.tree.map(lambda x: x[0], recorded), static)
            state = None if moments is None else {"nu": jax.tree.map(lambda x: x[0], moments)}
            found = past_the_edge.central(
                method, asked.value_fn, middle, state, h, steps, directions,
                {"record_every": every, "progress": asked.progress},
            )  # fmt: skip
            return found.followed, found.kept, found
        if p == "differences" and carried:
            own = Carried(method, the.loss, the.params, the.memory, h, unsigned)
            found = saved(own.field, own.start, origin, times, options)
            ys, beside = own.end(found.ys)
            return found._replace(ys=ys), beside, None
        assert chosen is not None

        def follow_by(field: Any) -> Followed:
            along = lambda at: _along(p, field, the, asked, at, h, origin, options)  # noqa: E731
            return along(times) if swing is None else past_the_edge.middle_of_flow(along, step, h)

        try:
            found = follow_by(chosen(p))
        except Warning:
            raise
        except Exception:
            alone, _ = _one_program(
                [p], equation, the, h, unsigned
            )  # the fault may be another flow's
            if len(smooth) == 1 or alone is None:
                raise
            found = follow_by(alone(p))
        if method.kept:
            return found._replace(ys=found.ys[0]), found.ys[1], None
        return found, {}, None

    results, stopped = each([p for p in names if p not in failures], follow)
    failures |= stopped
    followed = {p: found for p, (found, _, _) in results.items()}
    distance, travelled, size = distances(followed, dynamic, recorded)
    flows = {p: found.ys for p, found in followed.items()}
    for p in names:
        if p in failures:
            distance[p] = np.full(len(step), np.inf)
            flows[p] = unreached(recorded)

    along = (partition(discrete.params)[0], discrete.observed) if method.kept else recorded
    if swing is not None and not method.kept:
        along = partition(discrete.params)[0]
    clock = done * h + origin
    response = method.response()
    correction = _measured(
        "correction", failures, len(step),
        lambda: corrections_along(equation.truncate(1), the.loss, along, clock, h, asked.progress),
    )  # fmt: skip
    sharpness = (
        _measured(
            "sharpness",
            failures,
            len(step),
            lambda: sharpness_along(method, the.loss, along, clock, h, asked.progress),
        )
        if asked.sharpness
        else np.full(len(step), np.nan)
    )
    predicted = {p: found for p, (_, _, found) in results.items() if found is not None}
    amplitude = {p: found.amplitude for p, found in predicted.items()}
    mean_value = {p: found.mean_value for p, found in predicted.items()}
    eigenvalues = {p: x.eigenvalues for p, x in predicted.items() if x.eigenvalues.shape[1]}
    if swing is not None:
        amplitude["run"] = np.asarray(swing.amplitude)
        mean_value["run"] = np.asarray(swing.mean_value)
        if eigenvalues:
            eigenvalues["run"] = past_the_edge.eigenvalues_along(
                the.loss, recorded, directions, asked.progress
            )
    nothing = np.full(len(step), np.nan)
    return Comparison(
        method=method.name,
        learning_rate=h,
        step=step,
        time=times,
        discrete=discrete,
        flows={p: flows[p] for p in names},
        distance={p: distance[p] for p in names},
        travelled=travelled,
        correction=correction,
        remainder=nothing if remainder is None else np.asarray(remainder),
        sharpness=sharpness,
        stability_limit=float("nan") if response is None else response.stability_limit(),
        convergence_radius=float("nan") if response is None else response.convergence_radius(),
        floor=rounding_floor(size, step, dynamic, asked.solve.get("rtol")),
        start_up=said(the.start_up, the.before, the.filling),
        kept={p: results[p][1] if p in results else {} for p in names},
        solver_error={p: followed[p].own_error if p in followed else np.nan for p in names},
        midpoints=None if swing is None else combine(swing.middle, static),
        amplitude=amplitude,
        mean_value=mean_value,
        eigenvalues=eigenvalues,
        failures=failures,
        notes=_notes(names),
    )


def _notes(names: list[FlowName]) -> tuple[str, ...]:
    edge = [repr(p) for p in names if p in PAST_THE_EDGE]
    if not edge:
        return ()
    return (
        f"distances are from the middle of the run's oscillation, for {' and '.join(edge)}; what "
        "is to be trusted is said of the expansion in h, not of these",
    )


def _begun(asked: Asked) -> _Run:
    """The run after its burn-in, with the optimizer checked against its description."""
    method, h, names = asked.method, asked.learning_rate, asked.flows
    loss = check_start(asked.value_fn, asked.params)
    dynamic, _ = partition(asked.params)
    optimizer = asked.optimizer
    filling = steps_to_fill(method)
    start_up, burn_in = start_up_of(method, asked.start_up, asked.burn_in)
    for p in names:
        if isinstance(p, str) and start_up in ("weights", "shift"):
            raise ValueError(f"{p!r} must have start_up = 'burn-in' or 'cold'; got {start_up!r}.")
    if "central" in names:
        central_rule(method)
    if asked.own_optimizer:
        if method.kept:
            kept_states(method.kept, optimizer.init(dynamic))
        if not asked.read:
            check_described(method, optimizer, loss, dynamic, h, filling)
        if "two-phase" in names and remembers(method, dynamic, h):
            # Its memory is doubled in the shape that the method gives it; the steps are the same.
            optimizer = optimizer_of(method, h)
    carried = "differences" in names and carries_memory(method, dynamic, h)
    first = with_memory(optimizer, method, h) if carried else optimizer
    params = asked.params
    if burn_in:
        warm = run(
            first, asked.value_fn, params, burn_in, record_every=burn_in, progress=asked.progress
        )
        params, state = warm.last, warm.state
    else:
        state = first.init(partition(params)[0])
    state, memory = state if carried else (state, None)
    one_step = traced(step_of(optimizer), loss, partition(params)[0], state)
    if burn_in:
        check_motion(one_step, loss, partition(params)[0], state, burn_in, asked.burn_in is None)
    kept = kept_states(method.kept, state)
    return _Run(
        method, optimizer, loss, one_step, params, state, kept, memory, burn_in, start_up, filling
    )


Branch = Callable[[Array, Any, Any, Any, Any, PyTree], PyTree]


def _field(p: FlowName, equation: Equation, the: _Run, unsigned: Collection[str]) -> Branch:
    """The field of a flow as a function `(h, loss, one_step, state, t, y) -> dy/dt`."""

    def branch(h: Any, loss: Any, one_step: Any, state: Any, t: Any, y: PyTree) -> PyTree:
        if unsigned:
            y = y[0], not_below_zero(y[1], unsigned)
        if p != "differences":
            assert isinstance(p, int)
            field = vector_field(equation.truncate(p), lambda q: loss(partition(q)[0]), h)
        elif the.filling:
            field = displaced_field(the.method, lambda q: loss(partition(q)[0]), h)
        else:
            step_fn = lambda q: _whole_step(one_step, loss, q, state)  # noqa: E731
            field = interpolating_field(step_fn, 1, h)
        return partition(field(t, y, None))[0]

    return branch


def _one_program(
    names: list[FlowName], equation: Equation, the: _Run, h: Number, unsigned: Collection[str]
) -> tuple[Callable[[FlowName], Any] | None, dict[FlowName, str]]:
    """The fields of all flows as one compiled program, which takes the flow's index as an argument.

    Returns:
      A function from a flow's name to its field (None if there is none), and the reason for each
      flow that cannot be traced.
    """
    at = time_like(h, the.params)
    initial = (the.params, the.kept) if the.method.kept else the.params

    def program(names: list[FlowName]) -> Traced:
        branches = [_field(p, equation, the, unsigned) for p in names]

        def field_at(
            which: Array, h: Array, loss: Any, one_step: Any, state: Any, t: Any, y: PyTree
        ) -> PyTree:
            bound = [lambda t, y, f=f: f(h, loss, one_step, state, t, y) for f in branches]
            return jax.lax.switch(which, bound, t, y)

        return traced(field_at, np.int32(0), at, the.loss, the.one_step, the.state, at, initial)

    failures: dict[FlowName, str] = {}
    if not names:
        return None, failures
    try:
        chosen = program(names)
    except Exception:
        alone, failures = each(names, lambda p: program([p]))
        names = list(alone)
        chosen = program(names)

    def choose(p: FlowName) -> Any:
        which = jax.device_put(np.int32(names.index(p)))  # on the host it were part of the program

        def field(t: Any, y: PyTree, args: Any) -> PyTree:
            return chosen(which, at, the.loss, the.one_step, the.state, jnp.asarray(t, at.dtype), y)

        return field

    return choose, failures


def _along(
    p: FlowName, field: Any, the: _Run, asked: Asked, times: np.ndarray, h: Number, origin: Number,
    options: dict[str, Any],
) -> Followed:  # fmt: skip
    """The flow from the run's start, or from where the chosen start-up begins."""
    initial = (the.params, the.kept) if the.method.kept else the.params
    if the.start_up not in ("weights", "shift"):
        return saved(field, initial, origin, times, options)
    assert has_first_steps(the.method)
    assert isinstance(p, int)
    if the.start_up == "weights":
        count = np.rint(times / h).astype(int)
        early = min(the.filling, int(count[-1]))
        first = flow_while_filling(the.method, p, asked.value_fn, the.params, h, early)
        return saved_after(field, first, early, count, h, options)
    shifted = shifted_start(the.method, p, asked.value_fn, the.params, h, the.filling)
    return saved(field, shifted, 0.0, times, options)


def _whole_step(step: Callable[..., Any], loss: Any, params: PyTree, state: Any) -> PyTree:
    dynamic, static = partition(params)
    return combine(step(loss, dynamic, state)[0], static)


def _measured(
    what: str, failures: dict[Any, str], records: int, measure: Callable[[], np.ndarray]
) -> np.ndarray:
    """The values of a measure along the run, or nan and a recorded reason if it fails."""
    try:
        return measure()
    except Exception as error:
        failures[what] = reason(error)
        return np.full(records, np.nan)
