"""The squared norm of the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from igr.per_example.outputs import square_sum
from igr.pytrees import trained_part


def weight_penalty(
    params: PyTree, mask: PyTree | Callable[[PyTree], PyTree] | None = None
) -> Float[Array, ""]:
    r"""The penalty |W|^2 / 2, half the sum of the squares of the weights.

    The weight decay of "Gradient regularization improves accuracy of discriminative models"
    (appendix B), and the weight penalty of model gradient similarity (appendix A.1; Krogh and
    Hertz 1991).

    Normalisation: with the half, as in the authors' code, so that L + wd P adds wd W to the
    gradient, and of weights only: leaves of two axes or more that are not called "bias" (those of
    equinox's convolutions have several), neither biases nor scales.

    Args:
        params: Any pytree with floating leaves.
        mask: Which leaves count, in place of that rule: a pytree of bools in the structure of
            params or a prefix of it, or a function of params that returns one.

    Returns:
        The scalar, in float32 or wider.

    Raises:
        ValueError: If no floating leaf counts, or the mask does not fit params or holds something
            else than bools.

    >>> import jax.numpy as jnp
    >>> float(weight_penalty({"w": jnp.array([[3.0, 4.0]]), "b": jnp.array([7.0])}))
    12.5
    """
    trained = trained_part(params)
    if mask is None:
        chosen = jax.tree.map_with_path(
            lambda path, leaf: leaf if leaf.ndim >= 2 and not _is_bias(path) else None, trained
        )
        rule = "with two axes or more, which a weight has; give a mask to choose others"
    else:
        chosen = eqx.filter(trained, _full_mask(mask, params))
        rule = "that the mask chooses"
    if not jax.tree.leaves(chosen):
        shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(trained)]
        raise ValueError(
            f"params must hold a floating array {rule}; they hold floating arrays of shapes "
            f"{shapes}."
        )
    return square_sum(chosen) / 2


def _is_bias(path: tuple[Any, ...]) -> bool:
    return bool(path) and jax.tree_util.keystr(path[-1:], simple=True) == "bias"


def _full_mask(mask: PyTree | Callable[[PyTree], PyTree], params: PyTree) -> PyTree:
    """The mask with a bool for every leaf of params."""
    tree: Any = mask(params) if callable(mask) else mask

    def below(chosen: Any, part: PyTree) -> PyTree:
        if not isinstance(chosen, bool):
            raise ValueError(f"mask must hold Python bools; it holds {chosen!r}.")
        return jax.tree.map(lambda _: chosen, part)

    try:
        return jax.tree.map(below, tree, params)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "mask must be a pytree of bools with the structure of params or a prefix of it, or a "
            f"function of params that returns one: {error}"
        ) from error
