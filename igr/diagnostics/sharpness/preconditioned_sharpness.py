"""The sharpness that Adam meets: that of the loss in its own metric."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, PyTree

from igr.checks import Count, Number, check_number, check_step
from igr.curvature import SearchOptions, hessian_product, top_eigenpairs
from igr.curvature.vectors import require_like
from igr.meshes import on_any_mesh
from igr.options import check_known
from igr.pytrees import require_trained, trained_part
from igr.shown import short, table


class PreconditionedSharpness(NamedTuple):
    """The largest eigenvalue of C^(1/2) H C^(1/2).

    Attributes:
        value: The eigenvalue.
        vector: Its eigenvector, of norm one, with the structure of the parameters; the `initial`
            of the next call. C^(1/2) times it is the direction in which the optimizer oscillates.
        converged: Whether the search reached the tolerance.
        products: The number of Hessian products spent.
    """

    value: Float[Array, ""]
    vector: PyTree
    converged: Bool[Array, ""]
    products: Int[Array, ""]

    __repr__ = short
    _repr_html_ = table


@on_any_mesh
def preconditioned_sharpness(
    loss_fn: Callable[..., Any],
    params: PyTree,
    preconditioner: PyTree,
    batch: PyTree | None = None,
    *,
    chunk: Count | None = None,
    initial: PyTree | None = None,
    progress: bool | None = None,
    **options: Unpack[SearchOptions],
) -> PreconditionedSharpness:
    """The largest eigenvalue of the Hessian in an optimizer's own metric.

    An optimizer whose step is -h C m, with C slow beside the oscillation and m an average of the
    gradient, is stable while h times this stays below the limit of its average: 2 without one,
    2 (1 + b1)/(1 - b1) = 38 for Adam at b1 = 0.9. At its edge it stays there. The memory is that of
    Lanczos' basis, some 20 vectors.

    Args:
        loss_fn: `params -> scalar`; or, where `batch` is given, `(params, example) -> scalar`,
            and the loss is the mean over the batch.
        params: Any pytree with floating leaves.
        preconditioner: C, positive, like the floating leaves of `params`: `adam_preconditioner`
            has Adam's.
        batch: A pytree of arrays with a leading example axis.
        chunk: The number of examples to take at a time.
        initial: A vector to start from, that of the last call.
        progress: Whether to show a bar with the time left; once it has taken some seconds if not
            given. There is none under a transformation such as jit or vmap.
        **options: `igr.curvature.SearchOptions`: the relative error to reach, `tol`, the most
            products to spend, `max_products`, and a `key` for random starts.

    Returns:
        A `PreconditionedSharpness`: value, vector, converged, products.

    Raises:
        ValueError: If the preconditioner is not like the floating leaves of params, and as
            `igr.curvature.hessian_product` and `top_eigenpairs`.
        TypeError: If there is no option of a name that is given.

    >>> print(preconditioned_sharpness(
    ...     lambda w: w[0] ** 2 + 50 * w[1] ** 2, jnp.ones(2), jnp.array([1.0, 0.001])
    ... ).value.round(3))
    2.0

    References:
        Cohen et al., "Adaptive gradient methods at the edge of stability" (2022), section 3.
    """
    check_known(preconditioned_sharpness, options)
    like = require_trained(params)
    preconditioner = trained_part(preconditioner)
    require_like("preconditioner", preconditioner, like)
    root = jax.tree.map(lambda c, x: jnp.sqrt(c).astype(x.dtype), preconditioner, like)
    hessian = hessian_product(loss_fn, params, batch, chunk=chunk)

    def product(v: PyTree) -> PyTree:
        return _scaled(root, hessian(_scaled(root, v)))

    found = top_eigenpairs(
        product, params, 1, which="largest", initial=initial, progress=progress, **options
    )
    vector = jax.tree.map(lambda x: x[0], found.vectors)
    return PreconditionedSharpness(found.values[0], vector, found.converged, found.products)


def adam_preconditioner(
    state: Any, b1: Number = 0.9, b2: Number = 0.999, eps: Number = 1e-8, eps_root: Number = 0.0
) -> PyTree:
    """C of Adam's last step, 1/((1 - b1^n) (sqrt(nu/(1 - b2^n) + eps_root) + eps)), from its state.

    The step is then -h C m, with m the average of the gradient before its correction.

    Args:
        state: Of an optax chain with `optax.scale_by_adam` in it, after at least one step.
        b1: As in `optax.adam`, like the following.
        b2: The memory of the second moment.
        eps: Outside the root.
        eps_root: Inside the root.

    Returns:
        A pytree like the trained leaves.

    Raises:
        ValueError: If there is no one Adam state in `state`, or it has taken no step.

    >>> optimizer = optax.adam(0.1)
    >>> params = jnp.array([1.0, 2.0])
    >>> _, state = optimizer.update(params, optimizer.init(params))
    >>> print(adam_preconditioner(state).round(3))  # of g/|g| after one step
    [10.  5.]
    """
    found = [
        part
        for part in jax.tree.leaves(state, is_leaf=_is_adam)
        if isinstance(part, optax.ScaleByAdamState)
    ]
    if len(found) != 1:
        raise ValueError(
            "state must hold one state of optax.scale_by_adam, as that of optax.adam or adamw "
            f"does; it holds {len(found)}"
        )
    count = found[0].count
    if not isinstance(count, Tracer) and int(count) < 1:
        raise ValueError("state must be that after at least one step: nu is empty before")
    first, second = 1 - b1**count, 1 - b2**count
    return jax.tree.map(
        lambda nu: 1 / (first * (jnp.sqrt(nu / second + eps_root) + eps)), found[0].nu
    )


def adam_stability_limit(learning_rate: Number, b1: Number = 0.9) -> Number:
    """2 (1 + b1)/((1 - b1) h): Adam's limit on `preconditioned_sharpness`.

    >>> round(adam_stability_limit(0.001), 6)
    38000.0
    """
    learning_rate = check_step("learning_rate", learning_rate)
    b1 = check_number("b1", b1)
    if not 0 <= b1 < 1:
        raise ValueError(f"b1 must be in [0, 1); got {b1}.")
    return 2 * (1 + b1) / ((1 - b1) * learning_rate)


def _is_adam(part: Any) -> bool:
    return isinstance(part, optax.ScaleByAdamState)


def _scaled(root: PyTree, v: PyTree) -> PyTree:
    return jax.tree.map(lambda r, x: (r * x).astype(x.dtype), root, v)
