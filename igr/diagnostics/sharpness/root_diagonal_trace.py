"""tr Diag(H)^(1/2), which Adam with label noise lowers where SGD lowers tr H."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from igr.checks import Count, check_count
from igr.compiled import Traced, compiled, traced
from igr.curvature import hessian_product
from igr.curvature.vectors import random_signs, size, working_dtype
from igr.meshes import on_any_mesh
from igr.progress.late_bar import Ticking, scan, search_bar
from igr.pytrees import require_trained
from igr.shown import short, table


class RootDiagonalTrace(NamedTuple):
    """sum_i sqrt(H_ii), from an estimate of the diagonal.

    Attributes:
        value: The sum over the entries that are positive.
        clipped: The share of entries that came out negative and count as zero.
        clipped_size: The sum of the roots of their magnitudes: what clipping may have taken.
    """

    value: Float[Array, ""]
    clipped: Float[Array, ""]
    clipped_size: Float[Array, ""]

    __repr__ = short
    _repr_html_ = table


@on_any_mesh
def root_diagonal_trace(
    loss_fn: Callable[..., Any],
    params: PyTree,
    batch: PyTree | None = None,
    *,
    probes: Count = 100,
    chunk: Count | None = None,
    key: PRNGKeyArray | None = None,
    progress: bool | None = None,
) -> RootDiagonalTrace:
    """tr Diag(H)^(1/2), with the diagonal as the mean of z * Hz over random signs z.

    An entry is known to sqrt(sum_(j != i) H_ij^2 / probes). The root of a noisy entry is too small
    on average, and a noisy zero is clipped half of the time: compare values with the same number of
    probes, and look at what was clipped. Exact if H is diagonal.

    Args:
        loss_fn: `params -> scalar`; or, where `batch` is given, `(params, example) -> scalar`,
            and the loss is the mean over the batch.
        params: Any pytree with floating leaves.
        batch: A pytree of arrays with a leading example axis.
        probes: The number of Hessian products.
        chunk: The number of examples to take at a time.
        key: For the signs, `jax.random.key(0)` by default.
        progress: Whether to show a bar with the time left; once it has taken some seconds if not
            given. There is none under a transformation such as jit or vmap.

    Returns:
        A `RootDiagonalTrace`: value, clipped, clipped_size.

    Raises:
        ValueError: If `probes` is less than 1, and as `igr.curvature.hessian_product`.

    >>> found = root_diagonal_trace(lambda w: 2 * w[0] ** 2 + w[1] ** 4, jnp.array([1.0, 0.0]))
    >>> print(found.value, found.clipped)
    2.0 0.0

    References:
        Bekas, Kokiopoulou and Saad, "An estimator for the diagonal of a matrix" (2007).
    """
    like = require_trained(params)
    probes = check_count("probes", probes, 1)
    product = traced(hessian_product(loss_fn, params, batch, chunk=chunk), like)
    dtype = working_dtype(like)
    keys = jax.random.split(jax.random.key(0) if key is None else key, probes)
    inputs = product, like, keys
    with search_bar("diagonal", progress, probes, product.program.jaxpr, inputs) as bar:
        total = _total(product, like, keys, bar)
        if bar is not None:
            jax.block_until_ready(total)
    entries = [x / probes for x in jax.tree.leaves(total)]

    def summed(fn: Callable[[Array], Array]) -> Array:
        return jnp.sum(jnp.stack([jnp.sum(fn(x)).astype(dtype) for x in entries]))

    return RootDiagonalTrace(
        value=summed(lambda x: jnp.sqrt(jnp.maximum(x, 0))),
        clipped=summed(lambda x: x < 0) / size(like),
        clipped_size=summed(lambda x: jnp.sqrt(jnp.maximum(-x, 0))),
    )


@compiled
@on_any_mesh
def _total(product: Traced, like: PyTree, keys: Array, bar: Ticking | None) -> PyTree:
    """The sum of z * Hz over the probes."""
    dtype = working_dtype(like)

    def add(total: PyTree, key: PRNGKeyArray) -> tuple[PyTree, None]:
        z = random_signs(key, like)
        return jax.tree.map(lambda t, a, b: t + (a * b).astype(t.dtype), total, z, product(z)), None

    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.promote_types(x.dtype, dtype)), like)
    return scan(bar, add, zero, keys, len(keys))[0]
