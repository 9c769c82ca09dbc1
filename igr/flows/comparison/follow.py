"""Follows flows, saves them at the recorded steps, and measures their distance from the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from igr.checks import Number
from igr.compiled import compiled
from igr.flows.comparison.result import FlowName
from igr.flows.solving.fixed_steps import FixedSteps
from igr.flows.solving.solve import flow
from igr.pytrees import combine, partition

FRACTION = 2  # steps of the solver for one of a run that crosses kinks, 3 evaluations each


class Followed(NamedTuple):
    """A flow at the r records of a run.

    Attributes:
      ys: the flow's states, with a leading axis r.
      reached: which records the flow reached, (r,).
      own_error: the sum of the solver's error estimates; nan where a user's solver has none.
    """

    ys: PyTree
    reached: np.ndarray
    own_error: float


def each(
    names: list[FlowName], follow: Callable[[FlowName], Any]
) -> tuple[dict[FlowName, Any], dict[FlowName, str]]:
    """The result of `follow` for each flow, and the reason for each that failed.

    Raises:
      Exception: the first failure's own, if all of them fail.
    """
    found, failures, first = {}, {}, None
    for p in names:
        try:
            found[p] = follow(p)
        except Warning:
            raise  # made an error by the caller
        except Exception as error:
            first = first or error
            failures[p] = reason(error)
    if first is not None and not found:
        raise first
    return found, failures


def unreached(recorded: PyTree) -> PyTree:
    """An array of nan for each recorded one: in place of a flow that could not be followed."""
    return jax.tree.map(lambda x: np.full(x.shape, np.nan, x.dtype), recorded)


def reason(error: Exception) -> str:
    """An error's type and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'without a word'}"


def saved(
    field: Any, start: PyTree, t0: Number, times: np.ndarray, options: dict[str, Any]
) -> Followed:
    """The flow at the times t0 + times, as a `Followed`."""
    ts: Any = t0 + times
    solution = flow(field, start, ts[-1], t0=t0, ts=ts, **options)
    control = solution.controller_state
    own = float("nan")
    if isinstance(control, tuple):
        fixed = isinstance(options.get("stepsize_controller"), FixedSteps)
        own = float(control[-1]) if fixed or len(control) == 5 else own
    return Followed(solution.ys, np.isfinite(np.asarray(solution.ts)), own)


def saved_after(
    field: Any, first: PyTree, filling: int, count: np.ndarray, h: Number, options: dict[str, Any]
) -> Followed:
    """The flow at each step count: the given first steps up to `filling`, then by `field`."""
    first, static = partition(first)
    early = count[count <= filling]
    ys = jax.tree.map(lambda x: x[early], first)
    if early.size == count.size:
        return Followed(combine(ys, static), np.ones(count.size, bool), 0.0)
    start = combine(jax.tree.map(lambda x: x[-1], first), static)
    later = saved(field, start, filling * h, (count[early.size :] - filling) * h, options)
    ys = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ys, partition(later.ys)[0])
    ok = np.concatenate([np.ones(early.size, bool), later.reached])
    return Followed(combine(ys, static), ok, later.own_error)


def solver_options(h: Number, solve: dict[str, Any], progress: bool | None) -> dict[str, Any]:
    """The keyword arguments of `igr.flow` for a comparison: a bounded number of solver steps.

    Args:
      h: the step of the run.
      solve: the user's own options, which come first.
      progress: whether to show a bar.
    """
    # A plain loop, and no search for a first step: both compile in less time.
    options = {"adjoint": diffrax.ForwardMode(), "dt0": h, "optimizer_step": h}
    return options | {"progress": progress} | solve


def over_kinks(
    options: dict[str, Any], solve: dict[str, Any], h: Number, steps: int, fraction: int = FRACTION
) -> dict[str, Any]:
    """The same options for a run that crosses kinks, with `fraction` solver steps for each of it.

    A kink changes the run by the size of a step, and an adaptive solver would resolve each one,
    while the stages of a high order reach far across it. A solver, controller or step that the
    user gave in `solve` is kept.
    """
    if {"solver", "stepsize_controller", "dt0"} & solve.keys():
        return options
    fixed = {k: x for k, x in options.items() if k not in ("rtol", "atol", "optimizer_step")}
    fixed |= {"solver": diffrax.Bosh3(), "stepsize_controller": FixedSteps(), "dt0": h / fraction}
    return fixed | {"max_steps": max(options["max_steps"], fraction * steps + 10)}


def distances(
    flows: dict[FlowName, Followed], start: PyTree, recorded: PyTree
) -> tuple[dict[FlowName, np.ndarray], np.ndarray, np.ndarray]:
    """The distances of each flow and of the start from the run at each record, and the run's norm.

    Args:
      flows: the flows by name, their states params alone.
      start: the floating leaves at the start.
      recorded: the floating leaves of the run, with a leading axis r.
    """
    ends = {str(p): partition(found.ys)[0] for p, found in flows.items()}
    apart, travelled, size = jax.tree.map(np.array, _distances(ends, start, recorded))
    distance = {}
    for p, found in flows.items():
        with np.errstate(invalid="ignore"):
            ok = found.reached & np.isfinite(apart[str(p)])
        distance[p] = np.where(ok, apart[str(p)], np.inf)
    return distance, travelled, size


@compiled
def _distances(
    flows: dict[str, PyTree], start: PyTree, recorded: PyTree
) -> tuple[dict[str, Array], Array, Array]:
    def norm(tree: PyTree) -> Array:
        squares = [jnp.sum(x**2, axis=tuple(range(1, x.ndim))) for x in jax.tree.leaves(tree)]
        return jnp.sqrt(sum(squares))

    def from_run(tree: PyTree) -> Array:
        return norm(jax.tree.map(lambda x, y: x - y, recorded, tree))

    apart = {name: from_run(ys) for name, ys in flows.items()}
    return apart, from_run(start), norm(recorded)


def rounding_floor(size: np.ndarray, step: np.ndarray, params: PyTree, rtol: Any) -> np.ndarray:
    """The distance that rounding and the solver's tolerance alone can make, (r,)."""
    eps = max(float(jnp.finfo(x.dtype).eps) for x in jax.tree.leaves(params))
    used = rtol if rtol is not None else (1e-10 if eps < 1e-10 else 1e-5)
    return size * (eps * np.sqrt(1.0 + step) + used)
