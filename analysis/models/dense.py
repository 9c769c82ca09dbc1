"""A dense layer."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


class Dense(eqx.Module):
    """x W + b, the weights drawn with variance 1 / inputs and the biases zero.

    With examples in rows a batch of them is one product and no transposition, whichever way
    `jax.vmap` puts them; `equinox.nn.Linear`, W x + b, costs a transposition a layer.

    Attributes:
        weight: W.
        bias: b.
    """

    weight: Float[Array, "inputs outputs"]
    bias: Float[Array, " outputs"]

    def __init__(self, inputs: int, outputs: int, key: PRNGKeyArray):
        if inputs < 1 or outputs < 1:
            raise ValueError(f"inputs and outputs must be at least 1; got {inputs}, {outputs}")
        draw = jax.random.truncated_normal(key, -2.0, 2.0, (inputs, outputs))
        self.weight = draw / (_TRUNCATED_DEVIATION * inputs**0.5)
        self.bias = jnp.zeros(outputs)

    def __call__(self, x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        """The outputs for one input."""
        return x @ self.weight + self.bias


_TRUNCATED_DEVIATION = 0.87962566103423978  # of a standard normal cut at -2 and 2
