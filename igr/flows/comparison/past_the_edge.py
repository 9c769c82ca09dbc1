"""The flows past the edge of stability, and the oscillation of the run itself there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from igr.backward_error.protocols import Method
from igr.checks import Number, check_count
from igr.compiled import Traced, compiled
from igr.curvature import hessian_product, top_eigenpairs
from igr.curvature.vectors import size
from igr.flows.comparison.follow import Followed
from igr.flows.edge import central_flow, two_phase_flow
from igr.flows.edge.centre import central_rule
from igr.flows.validity import SEARCH
from igr.meshes import on_any_mesh
from igr.progress.late_bar import Ticking, scan, search_bar
from igr.pytrees import combine, partition

DIRECTIONS = 3


class Swing(NamedTuple):
    """The oscillation of a run around one step, from that step and its two neighbours.

    Attributes:
      middle: (w[n-1] + 2 w[n] + w[n+1])/4, the floating leaves.
      amplitude: |w[n-1] - 2 w[n] + w[n+1]|/4.
      mean_value: (E(w[n-1]) + 2 E(w[n]) + E(w[n+1]))/4.
    """

    middle: PyTree
    amplitude: Float[Array, ""]
    mean_value: Float[Array, ""]


class EdgeFlow(NamedTuple):
    """A flow past the edge of stability, with its predictions at each record."""

    followed: Followed
    kept: dict[str, PyTree]
    amplitude: np.ndarray
    mean_value: np.ndarray
    eigenvalues: np.ndarray


def swing(loss: Any, one_step: Any, params: PyTree, state: Any) -> tuple[Swing, PyTree, Any]:
    """The oscillation around the next step, the params there, and the state after two steps."""
    after, state, value, _ = one_step(loss, params, state)
    last, state, next_value, _ = one_step(loss, after, state)
    middle = jax.tree.map(lambda a, b, c: (a + 2 * b + c) / 4, params, after, last)
    half = jax.tree.map(lambda a, b, c: (a - 2 * b + c) / 4, params, after, last)
    mean = (value + 2 * next_value + loss(last)) / 4
    return Swing(middle, optax.tree.norm(half), mean), after, state


def directions_of(directions: Any, params: PyTree) -> int:
    """The number of directions to follow, checked.

    Raises:
      ValueError: for less than one, or more than there are parameters.
    """
    count = size(partition(params)[0])
    if directions is None:
        return min(DIRECTIONS, count)
    directions = check_count("directions", directions, 1)
    if directions > count:
        raise ValueError(
            f"directions must be at most the number of parameters, {count}; got {directions}"
        )
    return directions


def two_phase(
    method: Method,
    value_fn: Any,
    params: PyTree,
    state: Any,
    h: Number,
    steps: int,
    directions: int | None,
    options: dict[str, Any],
) -> EdgeFlow:
    """The two-phase flow of order 1 from the run's params and state."""
    found = two_phase_flow(
        method, value_fn, params, h, (steps + 1) * h, directions=directions, state=state, **options
    )
    return EdgeFlow(
        Followed(found.ys, np.asarray(found.reached), float("nan")),
        {},
        np.asarray(found.amplitude),
        np.asarray(found.value),
        np.asarray(found.eigenvalues),
    )


def central(
    method: Method,
    value_fn: Any,
    middle: PyTree,
    state: Any,
    h: Number,
    steps: int,
    directions: int,
    options: dict[str, Any],
) -> EdgeFlow:
    """The central flow from the run's first midpoint."""
    rule: dict[str, Any] = {**central_rule(method)}
    if rule:
        rule["nu"] = second_moment(state)
    found = central_flow(value_fn, middle, h, steps * h, directions, **rule, **options)
    # What it solved without an answer it goes on from without the oscillation: it is then no flow
    # of the run's centre, but that is for the distance to say.
    return EdgeFlow(
        Followed(found.ys, np.asarray(found.reached), float("nan")),
        {} if found.nu is None else {"nu": found.nu},
        np.asarray(found.amplitude),
        np.asarray(found.value),
        np.asarray(found.eigenvalues),
    )


def second_moment(state: Any) -> PyTree | None:
    """The part "nu" of an optimizer's state, RMSProp's second moment, or None."""
    try:
        return optax.tree.get(state, "nu")
    except KeyError:
        return None


def eigenvalues_along(
    loss: Traced, middles: PyTree, k: int, progress: bool | None = False
) -> np.ndarray:
    """The k largest eigenvalues of the Hessian at each record, (r, k)."""
    many, of_one = len(jax.tree.leaves(middles)[0]), loss.program.jaxpr
    inputs = loss, middles
    with search_bar("eigenvalues", progress, many, of_one, inputs, times=k * SEARCH) as bar:
        return np.asarray(_eigenvalues(loss, middles, k, bar))


@compiled
@on_any_mesh
def _eigenvalues(loss: Traced, middles: PyTree, k: int, bar: Ticking | None) -> Array:
    like = jax.tree.map(lambda x: x[0], middles)
    keys = optax.tree.split_key_like(jax.random.key(0), like)
    first = jax.tree.map(lambda key, x: jax.random.normal(key, (k, *x.shape), x.dtype), keys, like)

    def search(vectors: PyTree, params: PyTree) -> tuple[PyTree, Array]:
        product = hessian_product(lambda p: loss(p), params)
        found = top_eigenpairs(product, params, k, which="largest", tol=1e-2, initial=vectors)
        return found.vectors, found.values

    many = len(jax.tree.leaves(middles)[0])
    return scan(bar, search, first, middles, many)[1]


def middle_of_flow(
    follow: Callable[[np.ndarray], Followed], step: np.ndarray, h: Number
) -> Followed:
    """The flow's midpoints (y(t-h) + 2 y(t) + y(t+h))/4 at each step, as taken of the run."""
    wanted = np.unique(np.concatenate([step - 1, step, step + 1]))
    found = follow(wanted * h)
    at = [np.searchsorted(wanted, step + shift) for shift in (-1, 0, 1)]
    ys, static = partition(found.ys)
    ys = jax.tree.map(lambda y: (y[at[0]] + 2 * y[at[1]] + y[at[2]]) / 4, ys)
    ok = np.all([found.reached[i] for i in at], axis=0)
    return Followed(combine(ys, static), ok, found.own_error)
