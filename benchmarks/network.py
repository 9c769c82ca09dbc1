"""The networks, examples and losses that several benchmarks measure."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

WIDTHS = (784, 256, 256, 10)  # 269,322 parameters


def network(
    key: jax.Array, widths: tuple[int, ...] = WIDTHS, gain: float = 2.0
) -> list[dict[str, jax.Array]]:
    """An MLP with weights of variance gain/fan-in: 2 is He's for ReLU, 1 is for tanh."""
    keys = jax.random.split(key, len(widths) - 1)
    return [
        {"w": jax.random.normal(k, (m, n)) * (gain / m) ** 0.5, "b": jnp.zeros(n)}
        for k, m, n in zip(keys, widths[:-1], widths[1:], strict=True)
    ]


def examples(
    key: jax.Array, number: int, widths: tuple[int, ...] = WIDTHS
) -> tuple[jax.Array, jax.Array]:
    """Random inputs and labels."""
    inputs, labels = jax.random.split(key)
    return (
        jax.random.normal(inputs, (number, widths[0])),
        jax.random.randint(labels, (number,), 0, widths[-1]),
    )


def logits(params: Any, x: jax.Array) -> jax.Array:
    """The outputs of the ReLU network for one image."""
    for layer in params[:-1]:
        x = jax.nn.relu(x @ layer["w"] + layer["b"])
    return x @ params[-1]["w"] + params[-1]["b"]


def example_loss(params: Any, example: tuple[jax.Array, jax.Array]) -> jax.Array:
    """The cross-entropy of one image and its label."""
    x, label = example
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, x), label)
