"""A decoder of GPT-2's shape, its layers stacked so that a program is compiled for one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax


@dataclass(frozen=True)
class Shape:
    """How large a decoder is, and what it reads.

    Attributes:
      layers: how many blocks.
      width: of the residual stream.
      heads: of attention, by which width is divided.
      vocabulary: how many tokens there are.
      context: how many tokens a sequence has.
      batch: how many sequences.
    """

    layers: int
    width: int
    heads: int
    vocabulary: int
    context: int
    batch: int

    @property
    def tokens(self) -> int:
        """The tokens of a batch."""
        return self.batch * self.context


SHAPES = {
    "tiny": Shape(2, 32, 2, 64, 16, 2),
    "10^6": Shape(4, 128, 4, 1_024, 128, 16),
    "10^7": Shape(6, 320, 5, 8_192, 256, 8),
    "10^8": Shape(12, 768, 12, 50_257, 512, 4),  # GPT-2, with a shorter context
}


def decoder(key: jax.Array, shape: Shape, dtype: Any) -> dict[str, Any]:
    """Random parameters: GPT-2's initialisation, embeddings shared with the output."""
    keys = jax.random.split(key, 6)
    n, w = shape.layers, shape.width
    std = 0.02

    def normal(k: jax.Array, *size: int, scale: float = std) -> jax.Array:
        return (scale * jax.random.normal(k, size)).astype(dtype)

    deep = std / (2 * n) ** 0.5
    return {
        "tokens": normal(keys[0], shape.vocabulary, w),
        "places": normal(keys[1], shape.context, w),
        "blocks": {
            "norm1": jnp.ones((n, w), dtype),
            "qkv": normal(keys[2], n, w, 3 * w),
            "out": normal(keys[3], n, w, w, scale=deep),
            "norm2": jnp.ones((n, w), dtype),
            "up": normal(keys[4], n, w, 4 * w),
            "down": normal(keys[5], n, 4 * w, w, scale=deep),
        },
        "norm": jnp.ones(w, dtype),
    }


def sequences(key: jax.Array, shape: Shape) -> jax.Array:
    """Random tokens, of one more than a context: input and what follows it."""
    return jax.random.randint(key, (shape.batch, shape.context + 1), 0, shape.vocabulary)


def loss_of(shape: Shape, tokens: jax.Array) -> Callable[[Any], jax.Array]:
    """The mean cross-entropy of the next token, in float32."""

    def normed(x: jax.Array, gain: jax.Array) -> jax.Array:
        x32 = x.astype(jnp.float32)
        x32 = x32 - jnp.mean(x32, -1, keepdims=True)
        scaled = x32 * jax.lax.rsqrt(jnp.mean(x32**2, -1, keepdims=True) + 1e-5)
        return scaled.astype(x.dtype) * gain

    def block(x: jax.Array, p: Any) -> tuple[jax.Array, None]:
        b, t, w = x.shape
        qkv = (normed(x, p["norm1"]) @ p["qkv"]).reshape(b, t, 3, shape.heads, w // shape.heads)
        q, k, v = (qkv[:, :, i] for i in range(3))
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k).astype(jnp.float32)
        scores = scores * (w // shape.heads) ** -0.5
        scores = jnp.where(jnp.tril(jnp.ones((t, t), bool)), scores, -1e9)
        weights = jax.nn.softmax(scores, -1).astype(x.dtype)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(b, t, w)
        x = x + mixed @ p["out"]
        return x + jax.nn.gelu(normed(x, p["norm2"]) @ p["up"]) @ p["down"], None

    def value_fn(params: Any) -> jax.Array:
        x = params["tokens"][tokens[:, :-1]] + params["places"]
        x, _ = jax.lax.scan(block, x, params["blocks"])
        logits = (normed(x, params["norm"]) @ params["tokens"].T).astype(jnp.float32)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]))

    return value_fn
