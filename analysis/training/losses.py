"""Losses and measures of one example: the outputs of the network and what they should be."""

from __future__ import annotations

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int


def cross_entropy(outputs: Float[Array, " classes"], y: Int[Array, ""]) -> Float[Array, ""]:
    """-log softmax(outputs)_y."""
    return optax.softmax_cross_entropy_with_integer_labels(outputs, y)


def squared_error(outputs: Float[Array, " targets"], y: Float[Array, " targets"]):
    """The mean over the targets of the squared error."""
    return jnp.mean((outputs - y) ** 2)


def half_squared_error(outputs: Float[Array, " targets"], y: Float[Array, " targets"]):
    """Half the sum over the targets of the squared error."""
    return jnp.sum((outputs - y) ** 2) / 2


def accuracy(outputs: Float[Array, " classes"], y: Int[Array, ""]) -> Float[Array, ""]:
    """1 where the largest output is the example's class, else 0."""
    return (jnp.argmax(outputs) == y).astype(outputs.dtype)
