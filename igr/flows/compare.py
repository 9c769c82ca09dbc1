"""The discrete run beside the flows it may follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from igr.backward_error import methods, modified_equation
from igr.backward_error.protocols import Method
from igr.checks import check_count, check_step
from igr.compiled import traced
from igr.flows import kinds
from igr.flows.described import check_described
from igr.flows.fields.interpolation import interpolating_field
from igr.flows.fields.vector_field import vector_field
from igr.flows.from_optax import read_beside
from igr.flows.run import Trajectory, optimizer_of, run, step_of
from igr.flows.runnable import check_start, time_like
from igr.flows.solve import flow
from igr.flows.start_up import flow_while_filling, has_first_steps, shifted_start
from igr.flows.validity import corrections_along, sharpness_along, unexplained
from igr.pytrees import combine, partition

ValueFn = Callable[[PyTree], Array]
Order = int | Literal["differences"]
StartUp = Literal["burn-in", "weights", "shift", "cold"]

LARGEST_REMAINDER = 0.5  # of a change of the gradient, beyond which its derivatives say too little
LARGEST_CORRECTION = 0.3  # h |F1| / |F0| beyond which a truncated expansion is not to be trusted
_LAGS = 32  # of the slowest memory, after which kept states have settled
EDGE_OF_STABILITY = 0.9  # of the stability limit, about which the sharpness then hovers


@dataclass(frozen=True)
class Comparison:
    """A discrete run and the flows of its modified equation, at r recorded steps.

    Attributes:
      method: the method's name.
      learning_rate: the step h.
      step: the steps done at each record, (r,).
      time: step * h, at which the flows are taken.
      discrete: the recorded run.
      flows: order -> params of the flow at each record, with a leading axis r; inf after a flow
        has stopped.
      kept: order -> the states kept beside params, by name, at each record of the flow; empty
        where the method keeps none.
      distance: order -> Euclidean distance of run and flow at each record, (r,).
      travelled: Euclidean distance of the run from its start, (r,).
      correction: h |F1| / |F0| at the run's params, (r,).
      sharpness: the Hessian's eigenvalue of largest magnitude at the run's params, (r,); for an
        elementwise method that of the Hessian preconditioned as the method does it, by
        1/(sqrt(nu) + eps) for Adam. nan if it was not asked for, or has no meaning.
      stability_limit: h * sharpness beyond which the method diverges on a quadratic.
      convergence_radius: h * sharpness up to which the expansion converges on a quadratic. Past
        it a mode oscillates: its share of the motion shows in `correction` until it has died out.
      remainder: how much of the change of the gradient over the run's next step the Hessian does
        not explain, (r,): near 0 where the loss is smooth, near 1 where the step crosses kinks, as
        those of a ReLU network, which no derivative sees.
      trusted: where the expansion is to be trusted, (r,): the correction is at most 0.3, the
        remainder at most 0.5, and h * |sharpness| below nine tenths of the stability limit, where
        the edge of stability begins.
      solver_error: order -> the sum of the solver's own estimates of its error, over the flow.
      floor: the distance that rounding and the solver's tolerance alone may make, (r,).
      start_up: how the comparison deals with the steps in which the memory fills.
    """

    method: str
    learning_rate: float
    step: np.ndarray
    time: np.ndarray
    discrete: Trajectory
    flows: dict[Order, PyTree]
    distance: dict[Order, np.ndarray]
    travelled: np.ndarray
    correction: np.ndarray
    remainder: np.ndarray
    sharpness: np.ndarray
    stability_limit: float
    convergence_radius: float
    floor: np.ndarray
    start_up: str
    kept: dict[Order, dict[str, PyTree]]
    solver_error: dict[Order, float]

    @property
    def h_sharpness(self) -> np.ndarray:
        """h times sharpness, (r,)."""
        return self.learning_rate * self.sharpness

    @property
    def trusted(self) -> np.ndarray:
        """Where the expansion is to be trusted, (r,)."""
        return ~np.any(list(self.failed.values()), axis=0)

    @property
    def failed(self) -> dict[str, np.ndarray]:
        """Where each of the three tests of validity fails, (r,) each."""
        edge = EDGE_OF_STABILITY * self.stability_limit
        return {
            "h|F1|/|F0|": ~(self.correction <= LARGEST_CORRECTION),
            "kinks": ~(self.remainder <= LARGEST_REMAINDER),
            "edge of stability": np.abs(self.h_sharpness) > edge,  # false where not measured
        }

    @property
    def at_rounding(self) -> dict[Order, np.ndarray]:
        """Where a distance says nothing, being as small as rounding and tolerance make it."""
        return {p: d <= self.floor for p, d in self.distance.items()}

    def plot(self, ax: Any = None) -> Any:
        """Draws the distances on matplotlib Axes, see `igr.plots.comparison`."""
        from igr.plots import comparison  # matplotlib is only there with the extra `figures`

        return comparison(self, ax)

    def __str__(self) -> str:
        end = self.travelled[-1]
        lines = [
            f"{self.method}, h = {self.learning_rate:g}, {self.step[-1]} steps, {self.start_up}",
            f"travelled {end:.3e}",
        ]
        for p, distance in self.distance.items():
            last = distance[-1]
            note = "  (at rounding)" if self.at_rounding[p][-1] else ""
            share = last / end if end > 0 else float("nan")
            name = p if isinstance(p, str) else f"order {p}"
            lines.append(
                f"{name}: distance at the end {last:.3e}, {share:.2e} of it{note}"
                if np.isfinite(last)
                else f"{name}: the flow stopped after step {self._last_reached(p)}"
            )
            if self.solver_error[p] > 0.1 * last:
                lines.append(
                    f"  of which the solver's own error is up to {self.solver_error[p]:.1e}"
                )
        ends = {p: self.distance[p][-1] for p in (0, 1) if p in self.distance}
        if len(ends) == 2 and ends[1] > 0.9 * ends[0] and not self.at_rounding[0][-1]:
            lines.append("order 1 is no closer than order 0: the correction explains nothing here")
        lines.append(self._limits())
        untrusted = self.step[~self.trusted]
        if untrusted.size == 0:
            lines.append("the expansion is to be trusted at every recorded step")
        else:
            why = ", ".join(f"{name} at {sum(at)}" for name, at in self.failed.items() if any(at))
            lines.append(
                f"not to be trusted at {untrusted.size} of {self.step.size} recorded steps, "
                f"the first at step {untrusted[0]} ({why})"
            )
        return "\n".join(lines)

    def _last_reached(self, order: Order) -> int:
        reached = np.flatnonzero(np.isfinite(self.distance[order]))
        return int(self.step[reached[-1]]) if reached.size else 0

    def _limits(self) -> str:
        said = (
            f"h|F1|/|F0| up to {np.max(self.correction):.3g}, kinks up to "
            f"{np.max(self.remainder):.3g} of the change of the gradient"
        )
        if not np.any(np.isfinite(self.sharpness)):
            return said
        h_sharpness = self.h_sharpness
        said = (
            f"h * sharpness {np.nanmin(h_sharpness):.3g} to {np.nanmax(h_sharpness):.3g} "
            f"(expansion to {self.convergence_radius:.3g}, stable to {self.stability_limit:.3g}); "
        ) + said
        if np.nanmax(np.abs(h_sharpness)) > self.convergence_radius:
            said += (
                "\nin the sharpest directions the expansion does not converge: higher orders need "
                "not be closer, and the lower ones hold while little of the motion is along them, "
                "as h|F1|/|F0| says"
            )
        return said


def compare(
    value_fn: ValueFn,
    params: PyTree,
    learning_rate: float,
    steps: int,
    orders: Sequence[Order] = (0, 1, 2),
    method: Method | None = None,
    *,
    optimizer: optax.GradientTransformation | Callable[..., Any] | None = None,
    record_every: int | None = None,
    start_up: StartUp | None = None,
    burn_in: int | None = None,
    sharpness: bool = True,
    rtol: float | None = None,
    atol: float | None = None,
    max_steps: int = 100_000,
    progress: bool = False,
    **diffeqsolve: Any,
) -> Comparison:
    """Lays the real run of an optimizer beside the flows of its modified equation.

    Run and flow are held against each other at equal time: n steps against t = n h.

    Args:
      value_fn: the loss E, `params -> scalar`.
      params: the start, any pytree with floating leaves.
      learning_rate: the step h.
      steps: how many steps to compare over.
      orders: the powers of h to which the equation is kept, each compared on its own; and
        "differences", for methods without memory: order 1 with differences of the gradient over
        the steps in place of its derivatives, so that kinks are seen (`igr.interpolating_field`).
      method: from `igr.methods`; read from the optimizer where that is a function of the step,
        else gradient descent.
      optimizer: the optax transformation to run, learning rate included; or a function of the
        learning rate to one, as `lambda h: optax.adam(h)`; the method's own if not given. States
        the method keeps are read from its state by their names, as Adam's `nu`. Its steps must be
        those of the method, which is checked.
      record_every: steps between records; such that there are about 100 records if not given.
      start_up: how to deal with the first steps, in which a memory fills. The equation holds once
        it has; *from a cold start every order is only O(h) close.*
        "burn-in": the comparison begins after some steps of the discrete run. The default.
        "weights": the flow follows the field of each of the first steps, whose weights depend on
        the step, and then the equation. Linear methods.
        "shift": the flow starts where it will meet the run once the memory has filled. Linear
        methods; distances at the first records are those of the shift.
        "cold": nothing is done.
      burn_in: steps of the discrete run before the comparison starts; 0 is a cold start. If not
        given: as many as make what the memory still lacks 1e-8 of it, and where states are kept at
        least 32 times as many as the slowest memory looks back on the mean.
      sharpness: whether to measure the sharpness at every record.
      rtol: the solver's relative tolerance, as in `igr.flow`.
      atol: the solver's absolute tolerance, as in `igr.flow`.
      max_steps: the most steps the solver may take for a flow. One that is stiff, as where h times
        the sharpness is far past the convergence radius, stops there with a `FlowStopped`.
      progress: shows the solver's progress bar.
      **diffeqsolve: anything else `igr.flow` takes, such as a `solver`.

    Returns:
      A `Comparison`; `print` it for a summary.

    Raises:
      ValueError: if the learning rate is not positive and finite, an order is negative, the
        loss is not a finite scalar at params, or the optimizer's steps are not the method's.

    >>> comparison = compare(lambda x: jnp.sum(jnp.cosh(x)), jnp.array([1.0, 2.0]), 0.05, steps=20)
    >>> bool(comparison.distance[2][-1] < comparison.distance[1][-1] < comparison.distance[0][-1])
    True
    """
    check_step("learning_rate", learning_rate)
    make = None if isinstance(optimizer, optax.GradientTransformation) else optimizer
    if make is not None:
        if not callable(make):
            raise TypeError(f"optimizer is an optax transformation or h -> one, got {make!r}")
        if method is None:
            method, optimizer = read_beside(make, params, float(learning_rate))
        else:
            optimizer = make(float(learning_rate))
    method = methods.gradient_descent() if method is None else method
    kinds.check_runnable(method)
    steps = check_count("steps", steps, 1)
    orders = [_order(p, method) for p in orders]
    if not orders:
        raise ValueError("orders names at least one order, such as (0, 1)")
    loss = check_start(value_fn, params)
    if record_every is None:
        record_every = -(-steps // 100)
    real = optimizer_of(method, learning_rate) if optimizer is None else optimizer
    filling = _steps_to_fill(method)
    if optimizer is not None:
        if method.kept:
            _kept_states(method.kept, real.init(partition(params)[0]))
        check_described(method, real, loss, partition(params)[0], learning_rate, filling)
    start_up, burn_in = _start_up(method, start_up, burn_in, filling)

    state, before = None, 0
    if burn_in:
        warm = run(real, value_fn, params, burn_in, record_every=burn_in)
        params, state, before = warm.last, warm.state, burn_in

    names = method.kept
    if state is None:
        state = real.init(partition(params)[0])
    kept = _kept_states(names, state)
    one_step = traced(step_of(real), loss, partition(params)[0], state)

    def observe(params: PyTree, state: Any) -> tuple[dict[str, PyTree], Array]:
        p = partition(params)[0]
        return _kept_states(names, state), unexplained(loss, p, one_step(loss, p, state)[0])

    discrete = run(
        real,
        value_fn,
        params,
        steps,
        record_every=record_every,
        state=state,
        observe=observe,
    )
    seen, remainder = discrete.observed
    discrete = discrete._replace(observed=seen)
    equation = modified_equation(method, max([p for p in orders if isinstance(p, int)] + [1]))
    count = np.asarray(discrete.step)
    times = count * learning_rate
    start, _ = partition(params)
    recorded = partition(discrete.params)[0]
    flows, distance, beside, own_error, arrived = {}, {}, {}, {}, {}
    h = time_like(learning_rate, params)
    initial = (params, kept) if names else params

    def field_at(
        which: Array, h: Array, loss: ValueFn, one_step: Any, state: Any, t: Any, y: PyTree
    ) -> PyTree:
        def field_of(p: Order) -> Any:
            if p == "differences":
                step_fn = lambda q: _whole_step(one_step, loss, q, state)  # noqa: E731
                return interpolating_field(step_fn, 1, h)
            return vector_field(equation.truncate(p), lambda q: loss(partition(q)[0]), h)

        fields = [field_of(p) for p in orders]
        branches = [lambda t, y, f=f: partition(f(t, y, None))[0] for f in fields]
        return jax.lax.switch(which, branches, t, y)

    # One program for all of them: which field it follows is an argument, as all numbers are.
    chosen = traced(field_at, np.int32(0), h, loss, one_step, state, h, initial)
    for number, p in enumerate(orders):
        which = jax.device_put(np.int32(number))  # on the host it would be part of the program

        def field(t: Any, y: PyTree, args: Any, which: Any = which) -> PyTree:
            return chosen(which, h, loss, one_step, state, jnp.asarray(t, h.dtype), y)

        options = {"rtol": rtol, "atol": atol, "max_steps": max_steps, "progress": progress}
        options |= {"optimizer_step": learning_rate} | diffeqsolve
        if p == "differences" and start_up in ("weights", "shift"):
            raise ValueError(
                f"'differences' takes start_up = 'burn-in' or 'cold'; got {start_up!r}"
            )
        if start_up in ("weights", "shift"):
            assert has_first_steps(method)
            assert isinstance(p, int)
            step = float(learning_rate)
            if start_up == "weights":
                early = min(filling, int(count[-1]))
                first = flow_while_filling(method, p, value_fn, params, step, early)
                ys, ok, own_error[p] = _and_then_along(field, first, early, count, step, options)
            else:
                shifted = shifted_start(method, p, value_fn, params, step, filling)
                ys, ok, own_error[p] = _saved(field, shifted, 0.0, times, options)
        else:
            origin = before * float(learning_rate)
            ys, ok, own_error[p] = _saved(field, initial, origin, times, options)
        flows[p], beside[p] = ys if names else (ys, {})
        arrived[p] = ok
    ends = {str(p): partition(ys)[0] for p, ys in flows.items()}
    apart, travelled, size = jax.tree.map(np.array, _distances(ends, start, recorded))
    for p in orders:
        with np.errstate(invalid="ignore"):
            ok = arrived[p] & np.isfinite(apart[str(p)])
        distance[p] = np.where(ok, apart[str(p)], np.inf)

    along = (recorded, discrete.observed) if names else recorded
    clock = times + before * learning_rate
    correction = corrections_along(equation.truncate(1), loss, along, clock, learning_rate)
    measured = (
        sharpness_along(method, loss, along, clock, learning_rate)
        if sharpness
        else np.full(len(times), np.nan)
    )
    response = method.response()
    leaves = jax.tree.leaves(start)
    eps = max(float(jnp.finfo(x.dtype).eps) for x in leaves)
    used_rtol = rtol if rtol is not None else (1e-10 if eps < 1e-10 else 1e-5)
    floor = size * (eps * np.sqrt(1.0 + np.asarray(discrete.step)) + used_rtol)
    return Comparison(
        method=method.name,
        learning_rate=float(learning_rate),
        step=np.asarray(discrete.step),
        time=times,
        discrete=discrete,
        flows=flows,
        distance=distance,
        travelled=travelled,
        correction=correction,
        remainder=np.asarray(remainder),
        sharpness=measured,
        stability_limit=float("nan") if response is None else response.stability_limit(),
        convergence_radius=float("nan") if response is None else response.convergence_radius(),
        floor=floor,
        start_up=_named(start_up, burn_in, filling),
        kept=beside,
        solver_error=own_error,
    )


def _order(p: Any, method: Method) -> Order:
    if not isinstance(p, str):
        return check_count("orders", p, 0)
    if p != "differences":
        raise ValueError(f"orders are counts or 'differences', got {p!r}")
    if _steps_to_fill(method) or method.kept:
        raise ValueError(f"{method.name} has a memory: 'differences' is for methods without")
    return "differences"


def _whole_step(step: Callable[..., Any], loss: ValueFn, params: PyTree, state: Any) -> PyTree:
    dynamic, static = partition(params)
    return combine(step(loss, dynamic, state)[0], static)


def _steps_to_fill(method: Method) -> int:
    """After how many steps a memory lacks 1e-8 of what it will hold."""
    fading, steps = method.memory()
    if fading == 0:
        return steps
    return int(np.ceil(np.log(1e-8) / np.log(fading)))


def _start_up(
    method: Method, start_up: StartUp | None, burn_in: int | None, filling: int
) -> tuple[StartUp, int]:
    """The start-up that was asked for, and the steps of burn-in."""
    allowed = ("burn-in", "weights", "shift", "cold")
    if start_up is not None and start_up not in allowed:
        raise ValueError(f"start_up is one of {', '.join(allowed)}; got {start_up!r}")
    if burn_in is not None:
        burn_in = check_count("burn_in", burn_in, 0)
        if start_up not in (None, "burn-in"):
            raise ValueError(f"burn_in = {burn_in} is for start_up = 'burn-in', got {start_up!r}")
        return ("burn-in" if burn_in else "cold"), burn_in
    if start_up in ("weights", "shift") and not has_first_steps(method):
        raise ValueError(
            f"start_up = {start_up!r} is for linear methods with memory; {method.name} takes "
            "'burn-in' or 'cold'"
        )
    if start_up in (None, "burn-in"):
        # After n steps a kept average, its bias corrected, changes by 1/n of itself in a step, and
        # by the lag of the memories beside it over n while these look back: squared, a thousandth.
        settled = int(np.ceil(_LAGS / (1 - method.memory().fading))) if method.kept else 0
        return "burn-in", max(filling, settled)
    return start_up, 0


def _named(start_up: StartUp, burn_in: int, filling: int) -> str:
    if not filling and not burn_in:
        return "no memory to fill"
    return {
        "burn-in": f"burn-in of {burn_in} steps",
        "weights": f"step-dependent weights for {filling} steps",
        "shift": "start shifted by the first steps",
        "cold": "cold start: every order is only O(h) close",
    }[start_up]


def _kept_states(names: Sequence[str], state: Any) -> dict[str, PyTree]:
    """The kept states by name, from the state of any optax transformation."""
    kept = {}
    for name in names:
        try:
            kept[name] = optax.tree.get(state, name)
        except KeyError as error:
            raise ValueError(
                f"the optimizer's state should have one part named {name!r}, which the method "
                f"keeps: {error}"
            ) from error
        if kept[name] is None:
            raise ValueError(
                f"the optimizer's state has no part named {name!r}, which the method keeps; "
                "describe the method with that state eliminated, or run the optimizer that has it"
            )
    return kept


def _saved(
    field: Any, start: PyTree, t0: float, times: np.ndarray, options: dict[str, Any]
) -> tuple[PyTree, np.ndarray, float]:
    """The flow at t0 + times, which of these it reached, and the solver's own error."""
    solution = flow(field, start, t0 + times[-1], t0=t0, ts=t0 + times, **options)
    control = solution.controller_state
    own = float(control[-1]) if isinstance(control, tuple) and len(control) == 5 else float("nan")
    return solution.ys, np.isfinite(np.asarray(solution.ts)), own


def _and_then_along(
    field: Any, first: PyTree, filling: int, count: np.ndarray, h: float, options: dict[str, Any]
) -> tuple[PyTree, np.ndarray, float]:
    """The flow at each count: of the first steps' own fields, then of the equation's."""
    first, static = partition(first)
    early = count[count <= filling]
    ys = jax.tree.map(lambda x: x[early], first)
    if early.size == count.size:
        return combine(ys, static), np.ones(count.size, bool), 0.0
    start = combine(jax.tree.map(lambda x: x[-1], first), static)
    later, ok, own = _saved(field, start, filling * h, (count[early.size :] - filling) * h, options)
    ys = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ys, partition(later)[0])
    return combine(ys, static), np.concatenate([np.ones(early.size, bool), ok]), own


@jax.jit
def _distances(
    flows: dict[str, PyTree], start: PyTree, recorded: PyTree
) -> tuple[dict[str, Array], Array, Array]:
    """How far each flow and the start are from the run at each record, and the run's own norm."""

    def norm(tree: PyTree) -> Array:
        squares = [jnp.sum(x**2, axis=tuple(range(1, x.ndim))) for x in jax.tree.leaves(tree)]
        return jnp.sqrt(sum(squares))

    def from_run(tree: PyTree) -> Array:
        return norm(jax.tree.map(lambda x, y: x - y, recorded, tree))

    apart = {name: from_run(ys) for name, ys in flows.items()}
    return apart, from_run(start), norm(recorded)
