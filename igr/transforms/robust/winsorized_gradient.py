"""The winsorized gradient of a batch, without holding the gradients of its examples."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from igr.checks import Number
from igr.meshes import on_any_mesh
from igr.per_example.factors import Factors, per_example_factors
from igr.per_example.sorting_network import reduce_sorted_products
from igr.pytrees import is_trained
from igr.transforms.masks import static_mask
from igr.transforms.robust.winsorization import mean_of_clipped, require_percentile, winsorized_mean


@on_any_mesh(like=1)
def winsorized_gradient(
    example_loss_fn: Callable[[PyTree, PyTree], Any],
    params: PyTree,
    batch: PyTree,
    percentile: Number,
    mask: PyTree | Callable[[PyTree], PyTree] | None = None,
) -> PyTree:
    r"""The winsorized mean of the per-example gradients of a batch, as `winsorize` makes it.

    The gradient of one example in the matrix of a dense layer is the outer product of the layer's
    input and its cotangent. These products are formed some rows at a time, winsorized, and dropped:
    the memory is that of one gradient and a few megabytes, where n gradients would be n times the
    parameters. Layers are found in the traced program, whatever library they come from; leaves that
    are used in another way (convolutions, sequences, tied weights) have their per-example gradients
    formed, but only they.

    The result is a gradient for any optimizer: with `optax.sgd` it takes the steps of
    `winsorized_sgd`.

    Args:
        example_loss_fn: `(params, example) -> scalar`.
        params: Any pytree with floating leaves.
        batch: A pytree of arrays with a leading axis of n examples.
        percentile: The level c in [0, 50], a Python number.
        mask: Which leaves are winsorized, the others being averaged; as in `winsorize`.

    Returns:
        A gradient with the structure and dtypes of params, with zeros for integer arrays and None
        for leaves that are no arrays.

    Raises:
        ValueError: If `percentile` is outside [0, 50]; else as
            `igr.per_example.per_example_gradients`.

    >>> import jax.numpy as jnp
    >>> loss = lambda w, example: (w @ example["x"] - example["y"]) ** 2 / 2
    >>> batch = {"x": jnp.array([[1.0], [2.0], [3.0]]), "y": jnp.array([0.0, 0.0, 100.0])}
    >>> print(winsorized_gradient(loss, jnp.array([[1.0]])[0], batch, percentile=50))
    [1.]

    References:
        Walker, "Appealing to Gradients to Investigate Neural Network Generalization" (2023),
        section 5.5.1.
    """
    level = require_percentile(percentile)
    chosen = static_mask(mask, params)
    leaves, structure = jax.tree.flatten(params)
    gradients = structure.flatten_up_to(per_example_factors(example_loss_fn, params, batch))
    return structure.unflatten(
        [
            _winsorized(leaf, gradient, level if here else Fraction(0))
            for leaf, gradient, here in zip(leaves, gradients, chosen, strict=True)
        ]
    )


def _winsorized(leaf: Any, gradient: Any, level: Fraction) -> Any:
    if isinstance(gradient, Factors):
        return _winsorized_product(gradient, level).astype(leaf.dtype)
    if gradient is None:
        return None
    if not is_trained(leaf):
        return jnp.zeros_like(leaf)
    return winsorized_mean(gradient, level)


@partial(jax.jit, static_argnames="level")
def _winsorized_product(factors: Factors, level: Fraction) -> Array:
    if level == 0:
        return factors.mean()
    reduce = mean_of_clipped(level, factors.left.shape[0])
    return reduce_sorted_products(reduce, *factors)
