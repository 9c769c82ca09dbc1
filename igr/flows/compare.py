"""The discrete run beside the flows it may follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from igr.backward_error import methods, modified_equation
from igr.backward_error.methods import Method
from igr.backward_error.stability import (
    convergence_radius,
    slowest_memory,
    stability_limit,
    steps_remembered,
)
from igr.curvature import sharpness as sharpness_at
from igr.flows.checks import check_count, check_runnable, check_start, check_step
from igr.flows.discrete import Trajectory, optimizer_of, run
from igr.flows.floating import combine, floating
from igr.flows.solve import flow, reached
from igr.flows.vector_field import vector_field

ValueFn = Callable[[PyTree], Array]

LARGEST_CORRECTION = 0.3  # h |F1| / |F0| beyond which a truncated expansion is not to be trusted


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
      distance: order -> Euclidean distance of run and flow at each record, (r,).
      travelled: Euclidean distance of the run from its start, (r,).
      correction: h |F1| / |F0| at the run's params, (r,).
      sharpness: the Hessian's eigenvalue of largest magnitude at the run's params, (r,); nan if
        it was not asked for.
      stability_limit: h * sharpness beyond which the method diverges on a quadratic.
      convergence_radius: h * sharpness up to which the expansion converges on a quadratic.
      trusted: where the expansion is to be trusted, (r,): the correction is at most 0.3 and
        h * |sharpness| at most the convergence radius.
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

    @property
    def h_sharpness(self) -> np.ndarray:
        """h times sharpness, (r,)."""
        return self.learning_rate * self.sharpness

    @property
    def trusted(self) -> np.ndarray:
        """Where the expansion is to be trusted, (r,)."""
        stable = ~(np.abs(self.h_sharpness) > self.convergence_radius)  # true where not measured
        return (self.correction <= LARGEST_CORRECTION) & stable

    @property
    def at_rounding(self) -> dict[int, np.ndarray]:
        """Where a distance says nothing, being as small as rounding and tolerance make it."""
        return {p: d <= self.floor for p, d in self.distance.items()}

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
    burn_in: int | None = None,
    sharpness: bool = True,
    rtol: float | None = None,
    atol: float | None = None,
    progress: bool = False,
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
        given.
      record_every: steps between records; such that there are about 100 records if not given.
      burn_in: steps of the discrete run before the comparison starts. The equation of a method
        with memory holds once the memory has filled; from a cold start every order is only O(h)
        close. If not given: as many as make what the memory still lacks 1e-8 of it.
      sharpness: whether to measure the sharpness at every record.
      rtol: the solver's relative tolerance, as in `igr.flow`.
      atol: the solver's absolute tolerance, as in `igr.flow`.
      progress: shows the solver's progress bar.

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
    check_runnable(method)
    steps = check_count("steps", steps, 1)
    orders = [check_count("orders", p, 0) for p in orders]
    if not orders:
        raise ValueError("orders names at least one order, such as (0, 1)")
    check_start(value_fn, params)
    if record_every is None:
        record_every = -(-steps // 100)
    if optimizer is None:
        optimizer = optimizer_of(method, learning_rate)
    fading = slowest_memory(method)
    if burn_in is None:
        burn_in = int(np.ceil(np.log(1e-8) / np.log(fading))) if fading > 0 else 0
        burn_in += steps_remembered(method) if fading == 0 else 0
    burn_in = check_count("burn_in", burn_in, 0)

    state = None
    start_up = "no memory to fill"
    if burn_in:
        start_up = f"burn-in of {burn_in} steps"
        warm = run(optimizer, value_fn, params, burn_in, record_every=burn_in)
        params, state = warm.last, warm.state
    elif steps_remembered(method):
        start_up = "cold start: every order is only O(h) close"

    discrete = run(optimizer, value_fn, params, steps, record_every=record_every, state=state)
    equation = modified_equation(method, max([*orders, 1]))
    times = np.asarray(discrete.step) * learning_rate
    start, static = floating(params)
    recorded = floating(discrete.params)[0]
    flows, distance = {}, {}
    used_rtol = 0.0
    for p in orders:
        solution = flow(
            vector_field(equation.truncate(p), value_fn, learning_rate),
            params,
            times[-1],
            ts=jnp.asarray(times),
            rtol=rtol,
            atol=atol,
            progress=progress,
        )
        flows[p] = solution.ys
        apart = np.array(_distance(floating(solution.ys)[0], recorded))
        distance[p] = np.where(np.asarray(reached(solution)), apart, np.inf)
    travelled = np.array(_distance(jax.tree.map(lambda x: x[None], start), recorded))

    loss = eqx.filter_closure_convert(lambda p: value_fn(combine(p, static)), start)
    correction = _corrections(equation.truncate(1), loss, recorded, learning_rate)
    measured = (
        np.array(_sharpness_along(loss, recorded)) if sharpness else np.full(len(times), np.nan)
    )
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
        stability_limit=stability_limit(method),
        convergence_radius=convergence_radius(method),
        floor=floor,
        start_up=start_up,
    )


@jax.jit
def _distance(a: PyTree, b: PyTree) -> Array:
    """Euclidean distance at each record, over all leaves."""
    squares = jax.tree.map(
        lambda x, y: jnp.sum((x - y).reshape(max(len(x), len(y)), -1) ** 2, axis=1), a, b
    )
    return jnp.sqrt(sum(jax.tree.leaves(squares)))


def _corrections(equation, loss: ValueFn, recorded: PyTree, h: float) -> np.ndarray:
    """h |F1| / |F0| at each record."""

    @eqx.filter_jit
    def along(loss: ValueFn, recorded: PyTree) -> Array:
        plain = vector_field(equation.truncate(0), loss, h)
        corrected = vector_field(equation, loss, h)

        def ratio(params: PyTree) -> Array:
            f0, f = plain(0.0, params, None), corrected(0.0, params, None)
            norm = optax.tree.norm(f0)
            apart = optax.tree.norm(optax.tree.sub(f, f0))
            return jnp.where(norm > 0, apart / jnp.where(norm > 0, norm, 1), 0.0)

        return jax.lax.map(ratio, recorded)

    return np.array(along(loss, recorded))


@eqx.filter_jit
def _sharpness_along(loss: ValueFn, recorded: PyTree) -> Array:
    """The sharpness at each record, each search started from the last eigenvector."""

    def value(params: PyTree) -> Array:
        return loss(params)

    def at(vector: PyTree, params: PyTree) -> tuple[PyTree, Array]:
        found = sharpness_at(value, params, initial=vector, tol=1e-2)
        return found.vector, found.value

    first = jax.tree.map(lambda x: x[0], recorded)
    vector = sharpness_at(value, first, tol=1e-2).vector
    return jax.lax.scan(at, vector, recorded)[1]
