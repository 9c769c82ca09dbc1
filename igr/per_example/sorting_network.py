"""Order statistics over examples, coordinate by coordinate, by compare and exchange.

XLA's sort along an axis is slow on a CPU (45 times slower than numpy's). A sorting network does
the same comparisons whatever the data, elementwise minima and maxima over many coordinates at once.
Of a few examples XLA makes one loop that holds nothing but its input; of more, one loop a layer of
the network, over blocks of coordinates that stay in the cache.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Up to here XLA keeps the whole network in one loop (measured: at 64 it no longer does).
UNROLLED = 32


def reduce_sorted(
    reduce: Callable[[Float[Array, "n b"]], Float[Array, " b"]], examples: Float[Array, "n ..."]
) -> Float[Array, "..."]:
    """`reduce` of the values of every coordinate in ascending order.

    Args:
        reduce: A function of the sorted values of some coordinates, `(n, b) -> (b,)`. They come in
            at least float32; where one of the n values is NaN all n of them are.
        examples: An array with a leading axis of n examples.

    Returns:
        The reduced array, without the leading axis, in the dtype of `examples`.

    References:
        Batcher, "Sorting networks and their applications" (1968): the bitonic sorter.
    """
    length, shape = examples.shape[0], examples.shape[1:]
    if math.prod(shape) == 0:
        return jnp.zeros(shape, examples.dtype)

    def reduced(block: Array) -> Array:
        wide = block.astype(jnp.promote_types(block.dtype, jnp.float32))
        return reduce(sort_examples(wide)).astype(examples.dtype)

    if length <= UNROLLED:
        return reduced(examples.reshape(length, -1)).reshape(shape)
    # Bytes of a block: on a CPU a core's cache, elsewhere only a bound on the memory.
    return jax.lax.platform_dependent(
        examples.reshape(length, -1),
        cpu=partial(_in_blocks, reduced, 2**21),
        default=partial(_in_blocks, reduced, 2**28),
    ).reshape(shape)


def sort_examples(examples: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
    """The values sorted along the leading axis; a NaN among them turns all of them into NaN.

    (Every value can end in every place, so there is a way through the network from each to each,
    and a NaN goes both ways at every comparison.)
    """
    length = examples.shape[0]
    wires = 1 << (length - 1).bit_length()
    if length <= UNROLLED:
        return jnp.stack(_sorted_rows(list(examples), wires))
    padding = jnp.full((wires - length, *examples.shape[1:]), jnp.inf, examples.dtype)
    x = jnp.concatenate([examples, padding])
    for half, mirrored in _layers(wires):
        x = _exchange(x, half, mirrored)
    return x[:length]


def _layers(wires: int) -> Iterator[tuple[int, bool]]:
    """The layers of the bitonic sorter: in runs of 2 `half` wires, each wire of the first half is
    compared with the one `half` further on, or mirrored, with the last but so many."""
    half = 1
    while half < wires:  # runs of `half` wires are in order; merge them in pairs
        yield half, True
        distance = half // 2
        while distance:
            yield distance, False
            distance //= 2
        half *= 2


def _sorted_rows(rows: list[Array], wires: int) -> list[Array]:
    """One comparison after the other. Wires without a row hold infinity: they never move."""
    for half, mirrored in _layers(wires):
        for start in range(0, wires, 2 * half):
            for i in range(start, start + half):
                j = 2 * start + 2 * half - 1 - i if mirrored else i + half
                if j < len(rows):
                    rows[i], rows[j] = jnp.minimum(rows[i], rows[j]), jnp.maximum(rows[i], rows[j])
    return rows


def _exchange(x: Array, half: int, mirrored: bool) -> Array:
    """One layer at once."""
    pairs = x.reshape(-1, 2, half, *x.shape[1:])
    low, high = pairs[:, 0], pairs[:, 1]
    if mirrored:
        high = high[:, ::-1]
    low, high = jnp.minimum(low, high), jnp.maximum(low, high)
    if mirrored:
        high = high[:, ::-1]
    return jnp.stack([low, high], axis=1).reshape(x.shape)


def _in_blocks(reduced: Callable[[Array], Array], block_bytes: int, x: Array) -> Array:
    """`reduced` of the columns of a matrix, some at a time."""
    length, size = x.shape
    columns = max(64, block_bytes // (max(4, x.dtype.itemsize) * length))
    if columns >= size:
        return reduced(x)

    def one_block(start: Array) -> Array:
        return reduced(jax.lax.dynamic_slice_in_dim(x, start, columns, axis=1))

    # The last block overlaps the one before it, so that one network is compiled and not two.
    whole, rest = divmod(size, columns)
    starts = [i * columns for i in range(whole)] + [size - columns] * (rest > 0)
    blocks = jax.lax.map(one_block, jnp.array(starts))
    return jnp.concatenate([blocks[:whole].reshape(-1), blocks[-1, columns - rest :]])
