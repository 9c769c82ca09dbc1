"""A variant of AlexNet for small images."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from analysis.models.dense import Dense
from analysis.models.mlp import dropout_keys, require_dropout
from analysis.models.pooling import max_pool

_FILTERS = (64, 192, 384, 256, 256)
_POOLED = (0, 1, 4)  # pooling after these convolutions
_UNITS = 1024


class AlexNet(eqx.Module):
    """Five convolutions of 3 by 3, pooled after the first, second and fifth, two hidden layers.

    The paper on model gradient similarity trains "a large convolution network (AlexNet)" on MNIST
    and does not say how it was made to fit. This variant is ours: the filters of the later AlexNet
    (64, 192, 384, 256, 256), padded 3 by 3 throughout, and 1,024 units instead of 4,096:
    5,670,602 parameters for images of 28 by 28 in 10 classes.

    Args:
        outputs: How many outputs.
        channels: Of an image.
        side: Of an image, in pixels; at least 8.
        dropout: The rate, after both hidden dense layers; only with a key is anything dropped.
        filters: Of the five convolutions.
        units: Of both hidden dense layers.
        key: Of the weights.

    Raises:
        ValueError: If `side` is below 8 or `dropout` not in [0, 1).

    References:
        Krizhevsky, "One weird trick for parallelizing convolutional neural networks" (2014);
        Szolnoky et al., "On the Interpretability of Regularisation for Neural Networks Through
        Model Gradient Similarity" (2022), Figure 3.
    """

    convolutions: tuple[eqx.nn.Conv2d, ...]
    layers: tuple[Dense, Dense, Dense]
    dropout: eqx.nn.Dropout

    def __init__(
        self,
        outputs: int = 10,
        channels: int = 1,
        side: int = 28,
        dropout: float = 0.0,
        filters: tuple[int, int, int, int, int] = _FILTERS,
        units: int = _UNITS,
        *,
        key: PRNGKeyArray,
    ):
        left = side // 8
        if left < 1:
            raise ValueError(f"side must be at least 8; got {side}")
        keys = jax.random.split(key, 8)
        sizes = zip((channels, *filters[:-1]), filters, keys[:5], strict=True)
        self.convolutions = tuple(eqx.nn.Conv2d(m, n, 3, padding=1, key=k) for m, n, k in sizes)
        self.layers = (
            Dense(filters[-1] * left**2, units, keys[5]),
            Dense(units, units, keys[6]),
            Dense(units, outputs, keys[7]),
        )
        self.dropout = require_dropout(dropout)

    def __call__(
        self, x: Float[Array, "channels side side"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, " outputs"]:
        """The outputs for one input."""
        for i, convolution in enumerate(self.convolutions):
            x = jax.nn.relu(convolution(x))
            x = max_pool(x) if i in _POOLED else x
        h = jnp.ravel(x)
        for layer, k in zip(self.layers[:-1], dropout_keys(self.dropout, key, 2), strict=True):
            h = self.dropout(jax.nn.relu(layer(h)), key=k, inference=k is None)
        return self.layers[-1](h)
