"""Two convolutions and two hidden dense layers, with any activation."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from analysis.models.dense import Dense
from analysis.models.pooling import max_pool


class ConvNet(eqx.Module):
    """Padded convolutions of 3 by 3, each pooled, and two hidden dense layers of equal width.

    Args:
        outputs: How many outputs.
        channels: Of an image.
        side: Of an image, in pixels; at least 4.
        filters: Of the two convolutions.
        units: Of a hidden dense layer.
        activation: Of convolutions and hidden layers.
        key: Of the weights.

    Raises:
        ValueError: If `side` is below 4.

    References:
        For the CIFAR-10 network of Jarvis, "Generalizing Regularization of Neural Networks to
        Correlated Parameter Spaces" (2021), Figure 4.8, of which the text alone is known: "various
        layer types", of convolutions among them. Its sizes are ours.

    >>> model = ConvNet(10, 3, 8, (4, 8), 16, key=jax.random.key(0))
    >>> model(jnp.zeros((3, 8, 8))).shape
    (10,)
    """

    convolutions: tuple[eqx.nn.Conv2d, eqx.nn.Conv2d]
    layers: tuple[Dense, Dense, Dense]
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def __init__(
        self,
        outputs: int,
        channels: int,
        side: int,
        filters: tuple[int, int],
        units: int,
        activation: Callable[[Array], Array] = jax.nn.relu,
        *,
        key: PRNGKeyArray,
    ):
        if side < 4:
            raise ValueError(f"side must be at least 4; got {side}")
        keys = jax.random.split(key, 5)
        first, second = filters
        self.convolutions = (
            eqx.nn.Conv2d(channels, first, 3, padding=1, key=keys[0]),
            eqx.nn.Conv2d(first, second, 3, padding=1, key=keys[1]),
        )
        self.layers = (
            Dense(second * (side // 4) ** 2, units, keys[2]),
            Dense(units, units, keys[3]),
            Dense(units, outputs, keys[4]),
        )
        self.activation = activation

    def __call__(
        self, x: Float[Array, "channels side side"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, " outputs"]:
        """The outputs for one input."""
        del key
        for convolution in self.convolutions:
            x = max_pool(self.activation(convolution(x)))
        h = jnp.ravel(x)
        for layer in self.layers[:-1]:
            h = self.activation(layer(h))
        return self.layers[-1](h)
