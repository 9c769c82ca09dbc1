"""The length of a run in function space, by the size of its tangent features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from igr.compiled import Traced, compiled, traced
from igr.curvature.vectors import minus, norm, widened
from igr.meshes import on_any_mesh
from igr.one_example import of_one_example
from igr.per_example.kernel import kernel_norm
from igr.per_example.outputs import output_dimension
from igr.progress.late_bar import Ticking, mapped, search_bar
from igr.pytrees import combine, partition, require_trained


@on_any_mesh
def path_complexity(
    apply_fn: Callable[[PyTree, Any], Any],
    path: PyTree,
    x: PyTree,
    *,
    progress: bool | None = None,
) -> Float[Array, " steps"]:
    r"""The path length sum_t |w[t+1] - w[t]| |Phi_t|_F in function space after each step of a run.

    The complexity measure at the end of section 4.2 of "Appealing to gradients to investigate
    neural network generalization", after Baratin et al., "Implicit regularization via neural
    feature alignment" (2021). |Phi_t|_F^2 is the trace of the tangent kernel on x before the step.
    For a run recorded every few steps it is the sum over the coarser path of the records, which is
    smaller.

    In a training loop of one's own a step adds
    `norm(updates) * sqrt(tangent_kernel_trace(apply_fn, params, x))`.

    Args:
        apply_fn: `(params, x) -> outputs (q,)`, or a scalar, for one x.
        path: The parameters along the run: a pytree as params, floating arrays with a leading axis
            of steps + 1; other leaves as they are.
        x: A pytree of arrays with a leading axis of n examples.
        progress: Whether to show a bar with the time left; if not given, only after some seconds.
            There is none under a transformation such as jit or vmap.

    Returns:
        The sum after 1, 2, ... steps, an array (steps,) in float32 or wider.

    Raises:
        ValueError: As `tangent_kernel`; if the leaves of `path` disagree in their leading axis, or
            it holds fewer than two points.

    >>> import jax.numpy as jnp
    >>> line, x = lambda w, x: w**2 * x / 2, jnp.array([3.0, 4.0])  # |Phi|_F = 5 |w|
    >>> print(path_complexity(line, jnp.array([1.0, 2.0, 1.5]), x))
    [ 5. 10.]
    """
    points = steps_of(path)
    if points < 2:
        raise ValueError(f"path must hold at least two points, a step apart; it holds {points}.")
    trained, constant = partition(path)
    before = jax.tree.map(lambda w: w[:-1], trained)
    after = jax.tree.map(lambda w: w[1:], trained)
    lengths = jax.vmap(lambda a, b: norm(minus(widened(b), widened(a))))(before, after)
    norms = feature_norms(apply_fn, combine(before, constant), x, None, progress)
    return jnp.cumsum(lengths * norms)


def feature_norms(
    apply_fn: Callable[[PyTree, Any], Any],
    path: PyTree,
    x: PyTree,
    inverse: Any,
    progress: bool | None = False,
) -> Float[Array, " steps"]:
    """The norm |A_t^-1 Phi_t'|_F at every point of a path, an array (steps,)."""
    trained, constant = partition(path)
    times = jnp.arange(steps_of(path))

    def at(point: tuple[Array, PyTree]) -> Array:
        t, trained = point
        scaled = None if inverse is None else lambda v: inverse(t, v)
        return feature_norm(apply_fn, combine(trained, constant), x, scaled)

    points = times, trained
    one = traced(at, jax.tree.map(lambda w: w[0], points))
    with search_bar("path", progress, len(times), one.program.jaxpr, (one, points)) as bar:
        norms = _at_all(one, points, bar)
        if bar is not None:
            jax.block_until_ready(norms)
    return norms


@compiled
def _at_all(one: Traced, points: PyTree, bar: Ticking | None) -> Float[Array, " steps"]:
    return mapped(bar, one, points)


def feature_norm(
    apply_fn: Callable[[PyTree, Any], Any], params: PyTree, x: PyTree, inverse: Any
) -> Float[Array, ""]:
    """The norm |A^-1 Phi'|_F of the tangent features, with a row of Phi for every output."""
    if inverse is None:
        return kernel_norm(apply_fn, params, x)
    q = output_dimension(apply_fn, params, x)
    trained, constant = partition(params)

    def of_one(x: PyTree) -> Array:
        values, vjp_fn = jax.vjp(
            lambda p: jnp.ravel(of_one_example(apply_fn, combine(p, constant), x)), trained
        )
        signs = jnp.eye(q, dtype=values.dtype)
        return norm(jax.lax.map(lambda r: norm(widened(inverse(vjp_fn(r)[0]))), signs))

    return norm(jax.lax.map(of_one, jax.tree.map(jnp.asarray, x)))


def steps_of(path: PyTree) -> int:
    """The length of the leading axis that the floating leaves of a path share.

    Raises:
      ValueError: If they share none.
    """
    shapes = [leaf.shape for leaf in jax.tree.leaves(require_trained(path, "path"))]
    if () in shapes or len({shape[0] for shape in shapes}) > 1:
        raise ValueError(
            "the floating leaves of path must share a leading axis, one entry a point; got shapes "
            f"{shapes}."
        )
    return shapes[0][0]
