"""LeNet-5 and MLPs that normalise batches before each activation."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from analysis.models.lenet import LeNet
from analysis.models.mlp import MLP
from analysis.models.pooling import max_pool
from analysis.models.resnet import BATCH_AXIS


class NormalisedMLP(eqx.Module):
    """An `MLP` with batch normalisation between each dense layer and its activation.

    It has a state (the running means and variances), is made by `equinox.nn.make_with_state`, and
    is called inside a vmap named "batch".

    Args:
        inputs: How many inputs; an image is flattened.
        outputs: How many outputs.
        width: Units of a hidden layer.
        depth: Hidden layers.
        key: Of the weights.

    References:
        Ioffe and Szegedy, "Batch Normalization" (2015); Varga, Csiszarik and Zombori, "Gradient
        Regularization Improves Accuracy of Discriminative Models" (2018), section 4.2.
    """

    inner: MLP
    norms: tuple[eqx.nn.BatchNorm, ...]

    def __init__(self, inputs: int, outputs: int, width: int, depth: int, *, key: PRNGKeyArray):
        self.inner = MLP(inputs, outputs, width, depth, key=key)
        self.norms = tuple(_norm(width) for _ in range(depth))

    def __call__(
        self, x: Float[Array, ...], state: eqx.nn.State, *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, " outputs"], eqx.nn.State]:
        """The outputs for one input, and the new state."""
        del key
        x = jnp.ravel(x)
        for layer, norm in zip(self.inner.layers[:-1], self.norms, strict=True):
            x, state = norm(layer(x), state)
            x = jax.nn.relu(x)
        return self.inner.layers[-1](x), state


class NormalisedLeNet(eqx.Module):
    """`LeNet` with batch normalisation before each ReLU; used as `NormalisedMLP` is.

    Args:
        key: Of the weights.
    """

    inner: LeNet
    norms: tuple[eqx.nn.BatchNorm, ...]

    def __init__(self, *, key: PRNGKeyArray):
        self.inner = LeNet(key=key)
        self.norms = tuple(_norm(width) for width in (6, 16, 120, 84))

    def __call__(
        self,
        x: Float[Array, "channels side side"],
        state: eqx.nn.State,
        *,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, " outputs"], eqx.nn.State]:
        """The outputs for one input, and the new state."""
        del key
        for convolution, norm in zip(self.inner.convolutions, self.norms[:2], strict=True):
            x, state = norm(convolution(x), state)
            x = max_pool(jax.nn.relu(x))
        x = jnp.ravel(x)
        for layer, norm in zip(self.inner.layers[:2], self.norms[2:], strict=True):
            x, state = norm(layer(x), state)
            x = jax.nn.relu(x)
        return self.inner.layers[2](x), state


def _norm(width: int) -> eqx.nn.BatchNorm:
    return eqx.nn.BatchNorm(width, BATCH_AXIS, momentum=0.9, mode="batch")
