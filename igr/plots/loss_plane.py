"""A loss over a plane through parameter space."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from igr.checks import Count, Number, check_count, check_step, check_value_fn
from igr.compiled import Traced, compiled, traced
from igr.plots.style import axes, look
from igr.progress.late_bar import Ticking, mapped, search_bar
from igr.pytrees import combine, partition

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def loss_plane(
    value_fn: Callable[[PyTree], Any],
    params: PyTree,
    first: PyTree,
    second: PyTree,
    *,
    reach: Number = 1.0,
    points: Count = 41,
    paths: Mapping[str, PyTree] | None = None,
    ax: Axes | None = None,
    progress: bool | None = None,
) -> Axes:
    """Draws level lines of a loss over params + x u + y v, u and v orthonormal; returns the Axes.

    Give `igr.modified_value_fn(eq, value_fn, h)` for the loss that an optimizer follows, and the
    params of a run and of its flows as paths: they are drawn where they project to.

    Args:
      value_fn: `params -> scalar`.
      params: the origin of the plane.
      first: u, up to its length, like the floating leaves of params; such as an eigenvector.
      second: gives v, its part orthogonal to u.
      reach: the distance from the origin to each side of the plane.
      points: the number of points along a side; the loss is evaluated points^2 times.
      paths: names -> params with a leading axis, as `igr.Trajectory.params` are.
      ax: the Axes to draw on; new ones if None.
      progress: whether to show a bar with the time left; if not given, only after some seconds.

    Raises:
      ValueError: if the loss is no scalar, the two vectors are parallel or zero, or unlike params,
        or `points` is below 2.

    >>> ax = loss_plane(lambda w: w[0] ** 2 + 4 * w[1] ** 2, jnp.zeros(2), jnp.array([1.0, 0.0]),
    ...                 jnp.array([1.0, 1.0]), points=5, paths={"run": jnp.array([[1.0, 0.5]])})
    >>> print(ax.lines[0].get_xydata())
    [[1.  0.5]]
    """
    check_value_fn(value_fn)
    reach = check_step("reach", reach)
    points = check_count("points", points, 2)
    dynamic, static = partition(params)
    origin = _flat(dynamic)
    shapes = jax.tree.map(jnp.shape, dynamic)
    for name, vector in (("first", first), ("second", second)):
        given = jax.tree.map(jnp.shape, partition(vector)[0])
        if given != shapes:
            raise ValueError(f"{name} must be like params, {shapes}; got {given}")
    u, v = (_flat(partition(x)[0]) for x in (first, second))
    length = np.linalg.norm(u)
    u = u / length if length > 0 else u
    rest = v - (v @ u) * u
    if length == 0 or np.linalg.norm(rest) <= 1e-6 * np.linalg.norm(v):
        raise ValueError("first and second must be two directions: not zero, not parallel")
    v = rest / np.linalg.norm(rest)
    side = np.linspace(-reach, reach, points)
    loss = traced(lambda p: value_fn(combine(p, static)), dynamic)
    if getattr(loss.shapes, "shape", None) != ():
        raise ValueError(f"value_fn must return a scalar; got shape {loss.shapes.shape}.")
    inputs = loss, dynamic, jnp.asarray(u), jnp.asarray(v), jnp.asarray(side)
    with search_bar("plane", progress, points**2, loss.program.jaxpr, inputs) as bar:
        heights = np.asarray(_heights(*inputs, bar), float)
    ax = axes(ax)
    heights = np.where(np.isfinite(heights), heights, np.nan)
    lines = ax.contour(side, side, heights, levels=14, cmap="cividis", linewidths=0.9)
    ax.figure.colorbar(lines, ax=ax, label="loss")
    for number, (name, path) in enumerate((paths or {}).items()):
        leaves = jax.tree.leaves(partition(path)[0])
        flat = np.concatenate([np.asarray(x, float).reshape(len(x), -1) for x in leaves], axis=1)
        apart = flat - origin
        ax.plot(apart @ u, apart @ v, marker=".", markersize=3, label=name, **look(number))
    ax.set_xlabel("along the first direction")
    ax.set_ylabel("along the second")
    if paths:
        ax.legend()
    return ax


@compiled
def _heights(
    loss: Traced, dynamic: PyTree, u: Array, v: Array, side: Array, bar: Ticking | None
) -> Array:
    """The loss on the plane, (points, points), a row for every y along the second direction."""
    leaves, structure = jax.tree.flatten(dynamic)

    def at(place: tuple[Array, Array]) -> Array:
        y, x = place
        moved, start = [], 0
        for leaf in leaves:
            part = slice(start, start + leaf.size)
            shift = (x * u[part] + y * v[part]).reshape(leaf.shape)
            moved.append((leaf + shift).astype(leaf.dtype))
            start += leaf.size
        return loss(jax.tree.unflatten(structure, moved))

    count = len(side)
    places = jnp.repeat(side, count), jnp.tile(side, count)
    return mapped(bar, at, places).reshape(count, count)


def _flat(tree: PyTree) -> np.ndarray:
    return np.concatenate([np.asarray(x, float).ravel() for x in jax.tree.leaves(tree)])
