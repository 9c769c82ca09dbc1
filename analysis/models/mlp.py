"""Multilayer perceptrons of any width and depth."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from analysis.models.dense import Dense


class MLP(eqx.Module):
    """Dense layers with an activation between them.

    What the papers call an MLP of n layers has n hidden ones and an output layer: with 784 inputs,
    10 outputs and depth 5 there are 49,960 parameters at width 50 and 959,610 at 400.

    Args:
        inputs: How many inputs; an image is flattened.
        outputs: How many outputs.
        width: Units of a hidden layer.
        depth: Hidden layers; 0 is linear.
        activation: Of the hidden layers.
        dropout: The rate, after every hidden layer; only with a key is anything dropped.
        key: Of the weights.

    Raises:
        ValueError: If a size is not positive, `depth` is negative or `dropout` not in [0, 1).

    References:
        Barrett and Dherin, "Implicit Gradient Regularization" (2021), section 6, Figure 2.

    >>> model = MLP(784, 10, width=50, depth=5, key=jax.random.key(0))
    >>> model(jnp.zeros((1, 28, 28))).shape
    (10,)
    """

    layers: tuple[Dense, ...]
    dropout: eqx.nn.Dropout
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int,
        depth: int,
        activation: Callable[[Array], Array] = jax.nn.relu,
        dropout: float = 0.0,
        *,
        key: PRNGKeyArray,
    ):
        if depth < 0:
            raise ValueError(f"depth must be at least 0; got {depth}")
        sizes = (inputs, *[width] * depth, outputs)
        keys = jax.random.split(key, depth + 1)
        pairs = zip(sizes[:-1], sizes[1:], keys, strict=True)
        self.layers = tuple(Dense(m, n, k) for m, n, k in pairs)
        self.dropout = require_dropout(dropout)
        self.activation = activation

    def __call__(
        self, x: Float[Array, ...], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, " outputs"]:
        """The outputs for one input."""
        x = jnp.ravel(x)
        keys = dropout_keys(self.dropout, key, len(self.layers) - 1)
        for layer, k in zip(self.layers[:-1], keys, strict=True):
            x = self.dropout(self.activation(layer(x)), key=k, inference=k is None)
        return self.layers[-1](x)


def require_dropout(rate: float) -> eqx.nn.Dropout:
    """A dropout layer, or an error where the rate is none."""
    if not 0 <= rate < 1:
        raise ValueError(f"dropout must be in [0, 1); got {rate!r}")
    return eqx.nn.Dropout(rate)


def dropout_keys(
    dropout: eqx.nn.Dropout, key: PRNGKeyArray | None, number: int
) -> list[PRNGKeyArray | None]:
    """A key a layer; None where nothing is to be dropped."""
    if key is None or not dropout.p or number == 0:
        return [None] * number
    return list(jax.random.split(key, number))
