"""The floating leaves of a params pytree, apart from everything that is not differentiated."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree


def floating(params: PyTree) -> tuple[PyTree, PyTree]:
    """Splits params into floating leaves and the rest, each with `None` for the other.

    Raises:
      ValueError: if there is no floating leaf.
    """
    dynamic, static = eqx.partition(params, eqx.is_inexact_array)
    if not jax.tree.leaves(dynamic):
        raise ValueError(
            "params has no floating array among its leaves: there is nothing to differentiate; "
            f"got {jax.tree.structure(params)}"
        )
    return dynamic, static


def combine(dynamic: PyTree, static: PyTree) -> PyTree:
    """Puts params together again."""
    return eqx.combine(dynamic, static)


def like_params(values: PyTree, params: PyTree) -> PyTree:
    """A tangent in the structure of params: integer arrays get zeros, static leaves themselves."""
    rest = jax.tree.map(
        lambda x: jnp.zeros_like(x) if eqx.is_array(x) else x,
        eqx.filter(params, eqx.is_inexact_array, inverse=True),
    )
    return eqx.combine(values, rest)
