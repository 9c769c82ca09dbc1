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
from igr.backward_error.methods.linear import LinearMethod
from igr.backward_error.protocols import Method
from igr.checks import check_count, check_step
from igr.flows import kinds
from igr.flows.fields.vector_field import vector_field
from igr.flows.run import Trajectory, optimizer_of, run
from igr.flows.runnable import check_start
from igr.flows.solve import flow, reached
from igr.flows.start_up import flow_while_filling, shifted_start
from igr.flows.validity import corrections_along, sharpness_along
from igr.pytrees import combine, partition

ValueFn = Callable[[PyTree], Array]
StartUp = Literal["burn-in", "weights", "shift", "cold"]

LARGEST_CORRECTION = 0.3  # h |F1| / |F0| beyond which a truncated expansion is not to be trusted
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
      trusted: where the expansion is to be trusted, (r,): the correction is at most 0.3 and
        h * |sharpness| below nine tenths of the stability limit, where the edge of stability
        begins.
      floor: the distance that rounding and the solver's tolerance alone may make, (r,).
      start_up: how the comparison deals with the steps in which the memory fills.
    """

    method: str
    learning_rate: float
    step: np.ndarray
    time: np.ndarray
    discrete: Trajectory
    flows: dict[int, PyTree]
    distance: dict[int, np.ndarray]
    travelled: np.ndarray
    correction: np.ndarray
    sharpness: np.ndarray
    stability_limit: float
    convergence_radius: float
    floor: np.ndarray
    start_up: str
    kept: dict[int, dict[str, PyTree]]

    @property
    def h_sharpness(self) -> np.ndarray:
        """h times sharpness, (r,)."""
        return self.learning_rate * self.sharpness

    @property
    def trusted(self) -> np.ndarray:
        """Where the expansion is to be trusted, (r,)."""
        edge = EDGE_OF_STABILITY * self.stability_limit
        stable = ~(np.abs(self.h_sharpness) > edge)  # true where not measured
        return (self.correction <= LARGEST_CORRECTION) & stable

    @property
    def at_rounding(self) -> dict[int, np.ndarray]:
        """Where a distance says nothing, being as small as rounding and tolerance make it."""
        return {p: d <= self.floor for p, d in self.distance.items()}

    def plot(self, ax: Any = None) -> Any:
        """Draws the distances on matplotlib Axes, see `igr.plots.comparison`."""
        from igr.plots import comparison  # matplotlib is only there with the extra `figures`

        return comparison(self, ax)

    def __str__(self) -> str:
        orders = sorted(self.distance)
        end = self.travelled[-1]
        lines = [
            f"{self.method}, h = {self.learning_rate:g}, {self.step[-1]} steps, {self.start_up}",
            f"travelled {end:.3e}",
        ]
        for p in orders:
            last = self.distance[p][-1]
            note = "  (at rounding)" if self.at_rounding[p][-1] else ""
            share = last / end if end > 0 else float("nan")
            lines.append(f"order {p}: distance at the end {last:.3e}, {share:.2e} of it{note}")
        untrusted = self.step[~self.trusted]
        lines.append(
            f"h * sharpness {np.nanmin(self.h_sharpness):.3g} to {np.nanmax(self.h_sharpness):.3g}"
            f" (expansion to {self.convergence_radius:.3g}, stable to {self.stability_limit:.3g}); "
            f"h|F1|/|F0| up to {np.max(self.correction):.3g}"
            if np.any(np.isfinite(self.sharpness))
            else f"h|F1|/|F0| up to {np.max(self.correction):.3g}"
        )
        lines.append(
            "the expansion is to be trusted at every recorded step"
            if untrusted.size == 0
            else f"not to be trusted at {untrusted.size} of {self.step.size} recorded steps, "
            f"the first at step {untrusted[0]}"
        )
        return "\n".join(lines)


def compare(
    value_fn: ValueFn,
    params: PyTree,
    learning_rate: float,
    steps: int,
    orders: Sequence[int] = (0, 1, 2),
    method: Method | None = None,
    *,
    optimizer: optax.GradientTransformation | None = None,
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
      orders: the powers of h to which the equation is kept, each compared on its own.
      method: from `igr.methods`; gradient descent if not given.
      optimizer: the optax transformation to run, learning rate included; the method's own if not
        given. States the method keeps are read from its state by their names, as Adam's `nu`.
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
        given: as many as make what the memory still lacks 1e-8 of it.
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
      ValueError: if the learning rate is not positive and finite, an order is negative, or the
        loss is not a finite scalar at params.

    >>> comparison = compare(lambda x: jnp.sum(jnp.cosh(x)), jnp.array([1.0, 2.0]), 0.05, steps=20)
    >>> bool(comparison.distance[2][-1] < comparison.distance[1][-1] < comparison.distance[0][-1])
    True
    """
    method = methods.gradient_descent() if method is None else method
    check_step("learning_rate", learning_rate)
    kinds.check_runnable(method)
    steps = check_count("steps", steps, 1)
    orders = [check_count("orders", p, 0) for p in orders]
    if not orders:
        raise ValueError("orders names at least one order, such as (0, 1)")
    loss = check_start(value_fn, params)
    if record_every is None:
        record_every = -(-steps // 100)
    real = optimizer_of(method, learning_rate) if optimizer is None else optimizer
    filling = _steps_to_fill(method)
    start_up, burn_in = _start_up(method, start_up, burn_in, filling)

    state, before = None, 0
    if burn_in:
        warm = run(real, value_fn, params, burn_in, record_every=burn_in)
        params, state, before = warm.last, warm.state, burn_in

    names = method.kept
    if state is None:
        state = real.init(partition(params)[0])
    kept = _kept_states(names, state)
    discrete = run(
        real,
        value_fn,
        params,
        steps,
        record_every=record_every,
        state=state,
        observe=lambda _, state: _kept_states(names, state),
    )
    equation = modified_equation(method, max([*orders, 1]))
    count = np.asarray(discrete.step)
    times = count * learning_rate
    start, _ = partition(params)
    recorded = partition(discrete.params)[0]
    flows, distance, beside = {}, {}, {}
    for p in orders:
        field = vector_field(equation.truncate(p), value_fn, learning_rate)
        options = {"rtol": rtol, "atol": atol, "max_steps": max_steps, "progress": progress}
        options |= diffeqsolve
        if start_up in ("weights", "shift"):
            assert isinstance(method, LinearMethod)
            h = float(learning_rate)
            if start_up == "weights":
                early = min(filling, int(count[-1]))
                first = flow_while_filling(method, p, value_fn, params, h, early)
                ys, ok = _and_then_along(field, first, early, count, h, options)
            else:
                shifted = shifted_start(method, p, value_fn, params, h, filling)
                ys, ok = _saved(field, shifted, 0.0, times, options)
        else:
            origin = before * float(learning_rate)
            ys, ok = _saved(field, (params, kept) if names else params, origin, times, options)
        flows[p], beside[p] = ys if names else (ys, {})
        apart = np.array(_distance(partition(flows[p])[0], recorded))
        distance[p] = np.where(ok, apart, np.inf)
    travelled = np.array(_distance(jax.tree.map(lambda x: x[None], start), recorded))

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
    size = np.array(_distance(jax.tree.map(lambda x: jnp.zeros_like(x)[None], start), recorded))
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
        sharpness=measured,
        stability_limit=float("nan") if response is None else response.stability_limit(),
        convergence_radius=float("nan") if response is None else response.convergence_radius(),
        floor=floor,
        start_up=_named(start_up, burn_in, filling),
        kept=beside,
    )


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
    if start_up in ("weights", "shift") and not isinstance(method, LinearMethod):
        raise ValueError(
            f"start_up = {start_up!r} is for linear methods with memory; {method.name} takes "
            "'burn-in' or 'cold'"
        )
    if start_up in (None, "burn-in"):
        # A kept state that is still empty may be divided by: one step at least fills it.
        return "burn-in", max(filling, 1 if method.kept else 0)
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
) -> tuple[PyTree, np.ndarray]:
    """The flow at t0 + times, and which of these it reached."""
    ts = jnp.asarray(t0 + times)
    solution = flow(field, start, t0 + times[-1], t0=t0, ts=ts, **options)
    return solution.ys, np.asarray(reached(solution))


def _and_then_along(
    field: Any, first: PyTree, filling: int, count: np.ndarray, h: float, options: dict[str, Any]
) -> tuple[PyTree, np.ndarray]:
    """The flow at each count: of the first steps' own fields, then of the equation's."""
    first, static = partition(first)
    early = count[count <= filling]
    ys = jax.tree.map(lambda x: x[early], first)
    if early.size == count.size:
        return combine(ys, static), np.ones(count.size, bool)
    start = combine(jax.tree.map(lambda x: x[-1], first), static)
    later, ok = _saved(field, start, filling * h, (count[early.size :] - filling) * h, options)
    ys = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ys, partition(later)[0])
    return combine(ys, static), np.concatenate([np.ones(early.size, bool), ok])


@jax.jit
def _distance(a: PyTree, b: PyTree) -> Array:
    """Euclidean distance at each record, over all leaves."""
    squares = jax.tree.map(
        lambda x, y: jnp.sum((x - y).reshape(max(len(x), len(y)), -1) ** 2, axis=1), a, b
    )
    return jnp.sqrt(sum(jax.tree.leaves(squares)))
