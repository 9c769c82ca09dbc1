"""The convolution over pairs that learns XOR detection."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from analysis.models.dense import Dense


class XordNetwork(eqx.Module):
    """Filters of two weights that step from pair to pair, and a dense output layer.

    Args:
        filters: How many. The dissertation shows the number in a picture only.
        pairs: How many pairs of inputs.
        outputs: How many outputs.
        activation: Of the filters.
        key: Of the weights.

    References:
        Jarvis, "Generalizing Regularization of Neural Networks to Correlated Parameter Spaces"
        (2021), section 4.2.1 and Figure 4.1.

    >>> model = XordNetwork(20, key=jax.random.key(0))
    >>> model(jnp.ones(10)).shape
    (2,)
    """

    filters: Dense
    output: Dense
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def __init__(
        self,
        filters: int,
        pairs: int = 5,
        outputs: int = 2,
        activation: Callable[[Array], Array] = jnp.tanh,
        *,
        key: PRNGKeyArray,
    ):
        first, last = jax.random.split(key)
        self.filters = Dense(2, filters, first)
        self.output = Dense(pairs * filters, outputs, last)
        self.activation = activation

    def __call__(
        self, x: Float[Array, " 2*pairs"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, " outputs"]:
        """The outputs for one input."""
        del key
        return self.output(jnp.ravel(self.activation(self.filters(x.reshape(-1, 2)))))
