"""The mean square of a network's Jacobian with respect to its inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from igr.forward_mode import jacobian
from igr.per_example.outputs import square_sum
from igr.pytrees import num_examples


def mean_jacobian_square(
    of_one: Callable[[Any], Float[Array, " q"]], x: PyTree, outputs: int
) -> Float[Array, ""]:
    """The mean of |d of_one(x_i)/dx|_F^2, at one pass an output or an input, whichever is less."""
    inputs = sum(leaf.size for leaf in jax.tree.leaves(x)) // num_examples(x)
    matrix = jacobian(of_one, forward=outputs > inputs)
    return jnp.mean(jax.vmap(lambda x: square_sum(matrix(x)))(x))
