"""A small transformer on sequences of tokens: what comes next."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree


def transformer(seed: int, levels: int, length: int, width: int = 8, blocks: int = 2) -> PyTree:
    """Embeddings tied to the outputs, blocks stacked.

    Args:
        seed: Of the weights.
        levels: How many tokens there are.
        length: The longest sequence.
        width: Of the embedding.
        blocks: How many.
    """
    draw = np.random.default_rng(seed).normal

    def weights(*shape: int) -> Array:
        return jnp.asarray(draw(size=shape) / (2 * shape[-2]) ** 0.5, float)

    inside = {"qkv": (width, 3 * width), "mix": (width, width), "up": (width, 2 * width),
              "down": (2 * width, width)}  # fmt: skip
    stacked = {name: weights(blocks, *shape) for name, shape in inside.items()}
    stacked |= {name: jnp.ones((blocks, width)) for name in ("before", "between")}
    return {
        "embedding": weights(levels, width), "places": weights(length, width), "blocks": stacked,
        "last": jnp.ones(width),
    }  # fmt: skip


def next_token_loss(tokens: Int[Array, "sequences length"]) -> Callable[[PyTree], Float[Array, ""]]:
    """The mean cross entropy of every token but the first, given those before it."""

    def loss(params: PyTree) -> Float[Array, ""]:
        x = params["embedding"][tokens[:, :-1]] + params["places"][: tokens.shape[1] - 1]
        x, _ = jax.lax.scan(_block, x, params["blocks"])
        logits = _layer_norm(x, params["last"]) @ params["embedding"].T
        return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()

    return loss


def _layer_norm(x: Array, scale: Array) -> Array:
    x = x - x.mean(-1, keepdims=True)
    return x / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5) * scale


@jax.checkpoint
def _block(x: Array, p: PyTree) -> tuple[Array, None]:
    length, width = x.shape[-2:]
    q, k, v = jnp.split(_layer_norm(x, p["before"]) @ p["qkv"], 3, axis=-1)
    scores = jnp.einsum("bqd,bkd->bqk", q, k) / width**0.5
    scores = jnp.where(jnp.tril(jnp.ones((length, length), bool)), scores, -1e9)
    x = x + jax.nn.softmax(scores) @ v @ p["mix"]
    return x + jax.nn.gelu(_layer_norm(x, p["between"]) @ p["up"]) @ p["down"], None
