"""The modified field along a recorded run, from its iterates alone."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from igr.checks import Count, Number, check_count, check_step
from igr.flows.run import Trajectory
from igr.pytrees import combine, partition
from igr.shown import short, table


class FieldAlong(NamedTuple):
    """A vector field at the r points of a run.

    Attributes:
      step: the steps done at each point, (r,).
      params: the points, every floating leaf with a leading axis r.
      field: theta' at each point, of the same structure; zeros for integer leaves.
    """

    step: Int[Array, " r"]
    params: PyTree
    field: PyTree

    __repr__ = short
    _repr_html_ = table


def modified_field_along(
    trajectory: Trajectory, order: Count, *, learning_rate: Number = 1.0
) -> FieldAlong:
    """The field that a run followed, recovered from its iterates with an error of O(h^(order+1)).

    The optimizer may have any memory and schedule. Where the iterates are theta(n h) on a smooth
    curve, theta' is the derivative of the polynomial through order + 2 neighbours. For an optimizer
    with memory the first steps, its start-up, do not lie on the curve of the rest. Memory: some
    four copies of one leaf's iterates, besides the result, which is as large as the trajectory.

    Args:
      trajectory: from `igr.run`, with a record at every step (`record_every=1`).
      order: the highest power of h kept, at least 0. The run has at least order + 1 steps.
      learning_rate: the time h that a step takes; 1 gives the displacement per step, h F.

    Returns:
      A `FieldAlong` with as many points as there are records.

    Raises:
      ValueError: if there are too few records, or steps between them, or order is negative.

    On x^2/2 gradient descent multiplies by 1 - h, and its field is log(1 - h)/h x:

    >>> from igr.flows.run import run
    >>> import optax
    >>> along = modified_field_along(
    ...     run(optax.sgd(0.1), lambda x: jnp.sum(x**2) / 2, jnp.ones(1), 8), 3, learning_rate=0.1)
    >>> print(jnp.round(along.field[2:5, 0] / along.params[2:5, 0], 4), jnp.log(0.9).round(5) / 0.1)
    [-1.0536 -1.0536 -1.0536] -1.0536
    """
    order = check_count("order", order, 0)
    learning_rate = check_step("learning_rate", learning_rate)
    if not isinstance(trajectory, Trajectory):
        raise TypeError(
            f"trajectory must be what igr.run returns; got {type(trajectory).__name__}."
        )
    steps = np.asarray(trajectory.step)
    if not np.all(np.diff(steps) == 1):
        raise ValueError(
            "the iterates themselves are needed: run with record_every=1; the trajectory has "
            f"records at the steps {', '.join(map(str, steps[:4]))}, .."
        )
    nodes = order + 2
    if len(steps) < nodes:
        raise ValueError(
            f"order {order} takes {nodes} iterates, the trajectory has {len(steps)}: take more "
            "steps, or a lower order"
        )
    # A window around each point, pushed inside where it would leave the run.
    first = np.clip(np.arange(len(steps)) - nodes // 2, 0, len(steps) - nodes)
    place = np.arange(len(steps)) - first
    weights = np.array([_derivative_weights(nodes, i) for i in range(nodes)])[place]
    stacked, static = partition(trajectory.params)

    def differentiate(x: Array) -> Array:
        w = jnp.asarray(weights / learning_rate, x.dtype)
        # Differences from the point itself lose fewer digits than a sum of the iterates.
        total = jnp.zeros_like(x)
        for j in range(nodes):  # one at a time: each is as large as the run
            total = total + w[:, j].reshape(-1, *[1] * (x.ndim - 1)) * (x[first + j] - x)
        return total

    field = jax.tree.map(differentiate, stacked)
    still = jax.tree.map(lambda x: jnp.zeros_like(x) if hasattr(x, "dtype") else x, static)
    return FieldAlong(trajectory.step, trajectory.params, combine(field, still))


def _derivative_weights(nodes: int, at: int) -> list[float]:
    """The weights, exact, of the derivative at node `at` of the polynomial through 0, 1, ..

    l_j'(x_i) = w_j/(w_i (x_i - x_j)) for j != i with the barycentric weights w, and rows sum to 0.
    """
    barycentric = []
    for j in range(nodes):
        product = Fraction(1)
        for k in range(nodes):
            if k != j:
                product *= j - k
        barycentric.append(1 / product)
    row = [
        Fraction(0) if j == at else barycentric[j] / barycentric[at] / (at - j)
        for j in range(nodes)
    ]
    row[at] = -sum(row)
    return [float(x) for x in row]
