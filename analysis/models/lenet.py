"""LeNet-5 as it is written today."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from analysis.models.dense import Dense
from analysis.models.mlp import dropout_keys, require_dropout
from analysis.models.pooling import max_pool


class LeNet(eqx.Module):
    """Two convolutions with pooling and two hidden dense layers, all with ReLU.

    6 filters (padded) and 16 (not), 120 and 84 units: 61,706 parameters for images of 28 by 28, and
    13,994 for those of 8 by 8 with filters of 3 by 3.

    Args:
        outputs: How many outputs.
        channels: Of an image.
        side: Of an image, in pixels; at least 12, with filters of 3 by 3 at least 8.
        dropout: The rate; only with a key is anything dropped.
        dropout_everywhere: After both hidden dense layers ("between all fully connected layers",
            as for model gradient similarity); otherwise after the last alone (as for SpectReg).
        filter_side: Of a filter, in pixels; odd.
        key: Of the weights.

    Raises:
        ValueError: If `side` is below what the filters need, `filter_side` is even, or `dropout`
            is not in [0, 1).

    References:
        Varga, Csiszarik and Zombori, "Gradient Regularization Improves Accuracy of Discriminative
        Models" (2018), appendix B.1; Szolnoky et al., "On the Interpretability of Regularisation
        for Neural Networks Through Model Gradient Similarity" (2022), appendix D.1.
    """

    convolutions: tuple[eqx.nn.Conv2d, eqx.nn.Conv2d]
    layers: tuple[Dense, Dense, Dense]
    dropout: eqx.nn.Dropout
    dropout_everywhere: bool = eqx.field(static=True)

    def __init__(
        self,
        outputs: int = 10,
        channels: int = 1,
        side: int = 28,
        dropout: float = 0.0,
        dropout_everywhere: bool = False,
        filter_side: int = 5,
        *,
        key: PRNGKeyArray,
    ):
        if filter_side < 1 or filter_side % 2 == 0:
            raise ValueError(f"filter_side must be odd; got {filter_side}")
        lost = filter_side - 1  # by the second convolution, which is not padded
        left = (side // 2 - lost) // 2
        if left < 1:
            raise ValueError(f"side must be at least {2 * lost + 4}; got {side}")
        keys = jax.random.split(key, 5)
        self.convolutions = (
            eqx.nn.Conv2d(channels, 6, filter_side, padding=lost // 2, key=keys[0]),
            eqx.nn.Conv2d(6, 16, filter_side, key=keys[1]),
        )
        self.layers = (
            Dense(16 * left**2, 120, keys[2]),
            Dense(120, 84, keys[3]),
            Dense(84, outputs, keys[4]),
        )
        self.dropout = require_dropout(dropout)
        self.dropout_everywhere = dropout_everywhere

    def __call__(
        self, x: Float[Array, "channels side side"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, " outputs"]:
        """The outputs for one input."""
        for convolution in self.convolutions:
            x = max_pool(jax.nn.relu(convolution(x)))
        first, last = dropout_keys(self.dropout, key, 2)
        h = jax.nn.relu(self.layers[0](jnp.ravel(x)))
        if self.dropout_everywhere:
            h = self.dropout(h, key=first, inference=first is None)
        h = jax.nn.relu(self.layers[1](h))
        return self.layers[2](self.dropout(h, key=last, inference=last is None))
