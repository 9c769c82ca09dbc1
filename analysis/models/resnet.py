"""Residual networks of basic blocks: ResNet-18 and its smaller kin."""

from __future__ import annotations

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from analysis.models.dense import Dense

BATCH_AXIS = "batch"  # the name of the vmapped axis over which batches are normalised


class ResNet(eqx.Module):
    """Levels of blocks convolution-norm-ReLU-convolution-norm with a shortcut, then the mean.

    The number of filters and the size of the images change from level to level. With widths
    (64, 128, 256, 512) and two blocks a level it is ResNet-18: 11,279,112 parameters for 200
    outputs with the ImageNet stem, 11,173,962 for 10 outputs with the small one.

    With batch normalisation a model has a state (the running means and variances) and is made by
    `equinox.nn.make_with_state(ResNet)(...)`; it is called inside a vmap named "batch".

    Args:
        outputs: How many outputs.
        channels: Of an image.
        widths: Filters of each level.
        blocks: Blocks of a level.
        stem: "small": a convolution of 3 by 3. "imagenet": 7 by 7 by steps of 2, then pooling.
        norm: "batch", as in the papers, or "group": groups of up to 32 channels of one example,
            without state, so that per-example gradients mean something.
        key: Of the weights.

    Raises:
        ValueError: If `stem` or `norm` is unknown.

    References:
        He et al., "Deep Residual Learning for Image Recognition" (2016); Barrett and Dherin,
        "Implicit Gradient Regularization" (2021), appendix A.5; Varga, Csiszarik and Zombori,
        "Gradient Regularization Improves Accuracy of Discriminative Models" (2018), appendices
        B.2 and B.3.
    """

    first: eqx.nn.Conv2d
    first_norm: eqx.Module
    levels: tuple[tuple[_Block, ...], ...]
    output: Dense
    stem: Literal["small", "imagenet"] = eqx.field(static=True)
    stateful: bool = eqx.field(static=True)

    def __init__(
        self,
        outputs: int = 10,
        channels: int = 3,
        widths: tuple[int, ...] = (64, 128, 256, 512),
        blocks: int = 2,
        stem: Literal["small", "imagenet"] = "small",
        norm: Literal["batch", "group"] = "batch",
        *,
        key: PRNGKeyArray,
    ):
        if stem not in ("small", "imagenet"):
            raise ValueError(f'stem must be "small" or "imagenet"; got {stem!r}')
        if norm not in ("batch", "group"):
            raise ValueError(f'norm must be "batch" or "group"; got {norm!r}')
        keys = iter(jax.random.split(key, 2 + len(widths) * blocks))
        size, step, padding = (3, 1, 1) if stem == "small" else (7, 2, 3)
        self.first = _convolution(channels, widths[0], size, step, padding, next(keys))
        self.first_norm = _norm(norm, widths[0])
        levels, incoming = [], widths[0]
        for i, width in enumerate(widths):
            level = []
            for j in range(blocks):
                step = 2 if i and not j else 1
                level.append(_Block(incoming, width, step, norm, next(keys)))
                incoming = width
            levels.append(tuple(level))
        self.levels = tuple(levels)
        self.output = Dense(incoming, outputs, next(keys))
        self.stem = stem
        self.stateful = norm == "batch"

    def __call__(
        self,
        x: Float[Array, "channels height width"],
        state: eqx.nn.State | None = None,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Any:
        """The outputs; with batch normalisation a pair of them and the new state."""
        del key
        x, state = _normalised(self.first_norm, self.first(x), state)
        x = jax.nn.relu(x)
        if self.stem == "imagenet":
            x = eqx.nn.MaxPool2d(3, 2, padding=1)(x)
        for level in self.levels:
            for block in level:
                x, state = block(x, state)
        outputs = self.output(jnp.mean(x, axis=(1, 2)))
        return (outputs, state) if self.stateful else outputs


class _Block(eqx.Module):
    convolutions: tuple[eqx.nn.Conv2d, eqx.nn.Conv2d]
    norms: tuple[eqx.Module, eqx.Module]
    shortcut: eqx.nn.Conv2d | None
    shortcut_norm: eqx.Module | None

    def __init__(self, incoming: int, width: int, step: int, norm: str, key: PRNGKeyArray):
        first, second, third = jax.random.split(key, 3)
        self.convolutions = (
            _convolution(incoming, width, 3, step, 1, first),
            _convolution(width, width, 3, 1, 1, second),
        )
        self.norms = (_norm(norm, width), _norm(norm, width))
        as_it_is = incoming == width and step == 1
        self.shortcut = None if as_it_is else _convolution(incoming, width, 1, step, 0, third)
        self.shortcut_norm = None if as_it_is else _norm(norm, width)

    def __call__(self, x: Array, state: Any) -> tuple[Array, Any]:
        h, state = _normalised(self.norms[0], self.convolutions[0](x), state)
        h, state = _normalised(self.norms[1], self.convolutions[1](jax.nn.relu(h)), state)
        if self.shortcut is not None:
            x, state = _normalised(self.shortcut_norm, self.shortcut(x), state)
        return jax.nn.relu(x + h), state


def _convolution(
    incoming: int, width: int, size: int, step: int, padding: int, key: PRNGKeyArray
) -> eqx.nn.Conv2d:
    return eqx.nn.Conv2d(incoming, width, size, step, padding, use_bias=False, key=key)


def _norm(kind: str, width: int) -> eqx.Module:
    if kind == "batch":
        return eqx.nn.BatchNorm(width, BATCH_AXIS, momentum=0.9, mode="batch")
    groups = next(g for g in range(min(32, width), 0, -1) if width % g == 0)
    return eqx.nn.GroupNorm(groups, width)


def _normalised(norm: Any, x: Array, state: Any) -> tuple[Array, Any]:
    if isinstance(norm, eqx.nn.BatchNorm):
        return norm(x, state)
    return norm(x), state
