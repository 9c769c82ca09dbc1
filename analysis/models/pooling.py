"""Maximum pooling over squares that do not overlap."""

from __future__ import annotations

from jaxtyping import Array, Float


def max_pool(
    x: Float[Array, "channels height width"], side: int = 2
) -> Float[Array, "channels height//side width//side"]:
    """The maximum over squares of `side` by `side`; what is left over at the edges is dropped.

    Written with reshape, whose derivatives of any order are cheap everywhere; those of
    `lax.reduce_window` are a slow scatter on CPU.
    """
    channels, height, width = x.shape
    h, w = height // side, width // side
    x = x[:, : h * side, : w * side]
    return x.reshape(channels, h, side, w, side).max(axis=(2, 4))
