"""The sharpness: the extreme eigenvalue of the Hessian of the loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Unpack

import jax
from jaxtyping import Array, Bool, Float, Int, PyTree

from igr.checks import Count
from igr.curvature.eigenpairs import top_eigenpairs
from igr.curvature.hessian import hessian_product
from igr.curvature.options import SearchOptions
from igr.options import check_known
from igr.shown import short, table


class Sharpness(NamedTuple):
    """The extreme eigenvalue of the Hessian.

    Attributes:
        value: The eigenvalue, signed.
        vector: Its eigenvector, of norm one, with the structure of the parameters; the `initial`
            of the next call.
        converged: Whether |Hq - value q| reached the tolerance.
        products: The number of Hessian products spent.
    """

    value: Float[Array, ""]
    vector: PyTree
    converged: Bool[Array, ""]
    products: Int[Array, ""]

    __repr__ = short
    _repr_html_ = table


def sharpness(
    loss_fn: Callable[..., Any],
    params: PyTree,
    batch: PyTree | None = None,
    *,
    chunk: Count | None = None,
    which: Literal["magnitude", "largest", "smallest"] = "magnitude",
    initial: PyTree | None = None,
    progress: bool | None = None,
    **options: Unpack[SearchOptions],
) -> Sharpness:
    """The eigenvalue of the Hessian of the loss that is largest in magnitude, with its sign.

    Works inside jit, scan and vmap. Along a run give the vector of the last call as `initial`:
    where the Hessian moved little, a few products are then enough. They follow that eigenvector:
    should another one overtake it, only a cold start, or `top_eigenpairs` with k > 1, sees it. The
    memory is that of Lanczos' basis, some 20 vectors.

    Args:
        loss_fn: `params -> scalar`; or, where `batch` is given, `(params, example) -> scalar`,
            and the loss is the mean over the batch.
        params: Any pytree with floating leaves.
        batch: A pytree of arrays with a leading example axis.
        chunk: The number of examples to take at a time (see `hessian_product`).
        which: "magnitude"; "largest" or "smallest" for the algebraic extremes, the first of
            which gradient descent is stable for below 2 / learning_rate.
        initial: A vector to start from, with the structure of `params`.
        progress: Whether to show a bar with the time left; once it has taken some seconds if not
            given. There is none under a transformation such as jit or vmap.
        **options: `SearchOptions`: the relative error to reach, `tol`, the most products to spend,
            `max_products`, and a `key` for random starts.

    Returns:
        A `Sharpness`: value, vector, converged, products.

    Raises:
        ValueError: As `hessian_product` and `top_eigenpairs`.
        TypeError: If there is no option of a name that is given.

    >>> import jax.numpy as jnp
    >>> print(sharpness(lambda w: w[0] ** 2 - 3 * w[1] ** 2, jnp.ones(2)).value.round(4))
    -6.0
    """
    check_known(sharpness, options)
    product = hessian_product(loss_fn, params, batch, chunk=chunk)
    found = top_eigenpairs(
        product, params, 1, initial=initial, which=which, progress=progress, **options
    )
    vector = jax.tree.map(lambda x: x[0], found.vectors)
    return Sharpness(found.values[0], vector, found.converged, found.products)
