"""One hidden layer of tanh units on a set of examples, as a dictionary of arrays."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from analysis.data import Classification

HIDDEN = 16


def tanh_network(data: Classification, key: PRNGKeyArray) -> PyTree:
    """Weights scaled by 1/sqrt(fan in), biases of zero.

    Args:
        data: Says how many inputs and classes there are.
        key: Of the weights.

    Returns:
        `{"hidden": {"weights", "bias"}, "output": {"weights", "bias"}}`.
    """
    inputs = data.x.shape[1]
    lower, upper = jax.random.split(key)
    return {
        "hidden": {
            "weights": jax.random.normal(lower, (inputs, HIDDEN)) / jnp.sqrt(inputs),
            "bias": jnp.zeros(HIDDEN),
        },
        "output": {
            "weights": jax.random.normal(upper, (HIDDEN, data.num_classes)) / jnp.sqrt(HIDDEN),
            "bias": jnp.zeros(data.num_classes),
        },
    }


def batch_loss(
    params: PyTree, batch: tuple[Float[Array, "examples inputs"], Array]
) -> Float[Array, ""]:
    """The mean cross entropy of the network over a batch of inputs and classes."""
    x, y = batch
    hidden, output = params["hidden"], params["output"]
    units = jnp.tanh(x @ hidden["weights"] + hidden["bias"])
    logits = units @ output["weights"] + output["bias"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def cross_entropy(data: Classification) -> Callable[[PyTree], Float[Array, ""]]:
    """The mean cross entropy of the network over all examples, as a function of its weights."""
    return partial(batch_loss, batch=(jnp.asarray(data.x), jnp.asarray(data.y)))
