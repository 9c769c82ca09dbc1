"""Starting weights: the usual ones, and the small and the large regime."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from analysis.models.dense import Dense

Draw = Callable[[PRNGKeyArray, tuple[int, ...], int, int], Array]  # key, shape, fan in, fan out
M = TypeVar("M")

# Table 4.2 of Jarvis (2021), its rows "Init sigma^2": the small and the large regime by task and
# activation. The text says that weights are uniform between 0 and "a maximum value" and that for
# CIFAR-10 the scale of Glorot's normal distribution was changed. The parameter norms that it
# reports for the large regime on the synthetic set (146.2 and 60.3 at 0.5 and 0.2) fit numbers of
# mean square maximum^2 / 3 (148.0 and 59.2 with two hidden layers of 400), not variances of 0.5
# and 0.2: they are ranges.
INITIAL_RANGES: dict[tuple[str, str], tuple[float, float]] = {
    ("xor", "tanh"): (0.03, 2.3),
    ("xor", "relu"): (0.03, 1.7),
    ("xord", "tanh"): (0.4, 4.0),
    ("xord", "relu"): (0.2, 2.0),
    ("mnist", "tanh"): (0.1, 2.0),
    ("mnist", "relu"): (0.1, 2.0),
    ("synthetic", "tanh"): (0.05, 0.5),
    ("synthetic", "relu"): (0.02, 0.2),
    ("cifar10", "tanh"): (0.2, 5.0),
    ("cifar10", "relu"): (0.2, 5.0),
}


def initialise(model: M, draw: Draw, key: PRNGKeyArray, *, biases: bool = False) -> M:
    """The model with new weights in its dense layers and convolutions.

    Args:
        model: Any module made of `Dense` and equinox's convolutions; its shape alone will do
            (`equinox.filter_eval_shape`).
        draw: One of the distributions below.
        key: Of the draw.
        biases: Draw the biases too; otherwise they are zero.

    Returns:
        The model, new; its scales and offsets of normalisation stay.

    Raises:
        ValueError: If there is no such layer.

    >>> from analysis.models import MLP
    >>> small = initialise(MLP(2, 2, 5, 1, key=jax.random.key(0)), uniform(0.03), jax.random.key(1))
    >>> bool(small.layers[0].weight.max() < 0.03)
    True
    """

    def layers(tree: Any) -> list[Any]:
        kinds = (Dense, eqx.nn.Conv)
        return [
            leaf
            for leaf in jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, kinds))
            if isinstance(leaf, kinds)
        ]

    found = layers(model)
    if not found:
        raise ValueError("the model has no dense layer and no convolution to initialise")
    new = []
    for layer, k in zip(found, jax.random.split(key, len(found)), strict=True):
        shape = layer.weight.shape
        ends = shape if isinstance(layer, Dense) else (math.prod(shape[1:]), _fan_out(shape))
        for_weight, for_bias = jax.random.split(k)
        new.append(draw(for_weight, shape, *ends).astype(layer.weight.dtype))
        if layer.bias is not None:
            shape = layer.bias.shape
            bias = draw(for_bias, shape, *ends) if biases else jnp.zeros(shape)
            new.append(bias.astype(layer.bias.dtype))

    def leaves(tree: Any) -> list[Array]:
        pairs = [(layer.weight, layer.bias) for layer in layers(tree)]
        return [leaf for pair in pairs for leaf in pair if leaf is not None]

    return eqx.tree_at(leaves, model, new)


def uniform(high: float, low: float = 0.0) -> Draw:
    """Uniform between `low` and `high`: with 0 and a maximum the regimes of the dissertation.

    Raises:
        ValueError: If the two are not finite and in order.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"low and high must be finite and low < high; got {low}, {high}")
    return lambda key, shape, fan_in, fan_out: jax.random.uniform(
        key, shape, minval=low, maxval=high
    )


def glorot_normal(scale: float = 1.0) -> Draw:
    """Truncated normal with variance 2 scale / (fan in + fan out).

    Raises:
        ValueError: If `scale` is not positive and finite.
    """
    return _scaled(scale, lambda fan_in, fan_out: (fan_in + fan_out) / 2)


def lecun_normal(scale: float = 1.0) -> Draw:
    """Truncated normal with variance scale / fan in; what `Dense` starts with at scale 1.

    Raises:
        ValueError: If `scale` is not positive and finite.
    """
    return _scaled(scale, lambda fan_in, fan_out: fan_in)


def num_parameters(model: PyTree) -> int:
    """How many floating numbers a model holds that training changes.

    >>> num_parameters({"w": jnp.zeros((3, 4)), "steps": 7})
    12
    """
    return sum(leaf.size for leaf in jax.tree.leaves(model) if _is_parameter(leaf))


def _is_parameter(leaf: Any) -> bool:
    return hasattr(leaf, "shape") and jnp.issubdtype(leaf.dtype, jnp.floating)


def _scaled(scale: float, fan: Callable[[int, int], float]) -> Draw:
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"scale must be positive and finite; got {scale}")

    def draw(key: PRNGKeyArray, shape: tuple[int, ...], fan_in: int, fan_out: int) -> Array:
        initializer = jax.nn.initializers.variance_scaling(
            scale / fan(fan_in, fan_out), "fan_in", "truncated_normal"
        )
        # One input column a weight: jax divides by that fan, ours is in the scale.
        return initializer(key, (1, math.prod(shape))).reshape(shape)

    return draw


def _fan_out(shape: tuple[int, ...]) -> int:
    return shape[0] * math.prod(shape[2:])
