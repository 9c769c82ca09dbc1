"""The sharpness that mini-batch SGD meets: each batch's curvature along its own gradient."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from igr.checks import Count, check_count
from igr.compiled import Traced, compiled, traced
from igr.curvature.vectors import inner, norm, scaled
from igr.forward_mode import linearize
from igr.meshes import on_any_mesh
from igr.one_example import of_one_example
from igr.per_example.units import root_of_sum_of_squares
from igr.progress.late_bar import Ticking, mapped, search_bar
from igr.pytrees import combine, num_examples, partition, require_trained, trained_part
from igr.shown import short, table


class BatchSharpness(NamedTuple):
    """The mean of g_b' H_b g_b/|g_b|^2 over batches b.

    Attributes:
        value: The mean.
        standard_error: Of the mean, over the batches taken; NaN for one batch.
        batches: How many batches were taken.
    """

    value: Float[Array, ""]
    standard_error: Float[Array, ""]
    batches: Int[Array, ""]

    __repr__ = short
    _repr_html_ = table


@on_any_mesh
def batch_sharpness(
    example_loss_fn: Callable[[PyTree, PyTree], Any],
    params: PyTree,
    batch: PyTree,
    batch_size: Count,
    *,
    key: PRNGKeyArray | None = None,
    progress: bool | None = None,
) -> BatchSharpness:
    """E[g_b' H_b g_b/|g_b|^2], g_b and H_b the gradient and the Hessian of a mini-batch.

    SGD holds this at 2/h, where it progressively sharpens; the sharpness of the whole loss stays
    lower, the more so the smaller the batches. With batches of all examples it is the curvature
    along the gradient. About three gradients of the examples taken.

    Args:
        example_loss_fn: `(params, example) -> scalar`.
        params: Any pytree with floating leaves.
        batch: The examples to draw mini-batches of: a pytree with a leading example axis.
        batch_size: That of SGD. The examples are shuffled and cut; a rest is left out.
        key: For the shuffle; without it they are cut as they stand.
        progress: Whether to show a bar with the time left; once it has taken some seconds if not
            given. There is none under a transformation such as jit or vmap.

    Returns:
        A `BatchSharpness`: value, standard_error, batches. Batches without a gradient are left out
        of it; NaN if none has one.

    Raises:
        ValueError: If there are fewer examples than `batch_size`, or their axes disagree.

    >>> loss = lambda w, x: jnp.sum(x * w**2) / 2
    >>> print(batch_sharpness(loss, jnp.ones(1), jnp.array([1.0, 2.0, 3.0, 4.0]), 2).value)
    2.5

    References:
        Andreyev and Beneventano, "Edge of stochastic stability" (2024), definition 1.
    """
    require_trained(params)
    n = num_examples(batch)
    batch_size = check_count("batch_size", batch_size, 1)
    if batch_size > n:
        raise ValueError(
            f"batch_size must be at most the number of examples, {n}; got {batch_size}"
        )
    m = n // batch_size
    order = jnp.arange(n) if key is None else jax.random.permutation(key, n)
    chosen = order[: m * batch_size].reshape(m, batch_size)
    dynamic, static = partition(params)
    batch = jax.tree.map(jnp.asarray, batch)

    def mean(p: PyTree, examples: PyTree) -> Array:
        one = partial(of_one_example, example_loss_fn, combine(p, static))
        return jnp.mean(jax.vmap(one)(examples))

    loss = traced(mean, dynamic, jax.tree.map(lambda x: x[:batch_size], batch))
    inputs = loss, dynamic, batch, chosen
    with search_bar("batches", progress, m, loss.program.jaxpr, inputs, times=10) as bar:
        found, lengths = _curvatures(*inputs, bar)
        if bar is not None:
            jax.block_until_ready(found)
    usable = lengths != 0  # one that is not finite is not without a gradient
    found = jnp.where(usable, found, 0)
    count = jnp.sum(usable)
    mean_found = jnp.sum(found) / count
    apart = jnp.where(usable, found - mean_found, 0)
    spread = root_of_sum_of_squares(apart) / jnp.sqrt(count - 1)
    return BatchSharpness(mean_found, spread / jnp.sqrt(count), count)


@compiled
def _curvatures(
    mean: Traced, params: PyTree, batch: PyTree, chosen: Array, bar: Ticking | None
) -> tuple[Array, Array]:
    """The curvature along each batch's own gradient, and that gradient's length."""

    def curvature(indices: Array) -> tuple[Array, Array]:
        examples = jax.tree.map(lambda x: x[indices], batch)
        # The gradient is evaluated where it is linearized: its product with itself costs one more.
        gradient, product, _, _ = linearize(jax.grad(lambda p: mean(p, examples)), params)
        # Of a unit vector: squares of numbers far from one may leave the range of the dtype.
        length = norm(trained_part(gradient))
        unit = scaled(jnp.where(length > 0, 1 / length, 0), gradient)
        return inner(unit, product(unit)), length

    return mapped(bar, curvature, chosen)
