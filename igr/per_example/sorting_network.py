"""Order statistics over examples, coordinate by coordinate, by a sorting network.

XLA's sort along an axis is slow on a CPU (45 times slower than numpy's). A sorting network does
the same comparisons whatever the data, elementwise minima and maxima over many coordinates at once.
Of a few examples XLA makes one loop that holds nothing but its input; of more, one loop a layer of
the network, over blocks of coordinates that stay in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from igr.meshes import on_any_mesh

# Up to here XLA keeps the whole network in one loop (measured: at 64 it no longer does).
UNROLLED = 32


@on_any_mesh(like=1)
def reduce_sorted(
    reduce: Callable[[Float[Array, "n b"]], Float[Array, " b"]], examples: Float[Array, "n ..."]
) -> Float[Array, "..."]:
    """Applies `reduce` to the sorted values of every coordinate, over the example axis.

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
    flat = examples.reshape(length, -1)

    def columns(start: Array | int, number: int) -> Array:
        return jax.lax.dynamic_slice_in_dim(flat, start, number, axis=1)

    at_once = length <= UNROLLED  # one loop that reads the values where they are
    return _in_blocks(reduce, columns, flat.shape[1], 1, examples, at_once).reshape(shape)


@on_any_mesh
def reduce_sorted_products(
    reduce: Callable[[Float[Array, "n b"]], Float[Array, " b"]],
    left: Float[Array, "n a"],
    right: Float[Array, "n b"],
) -> Float[Array, "a b"]:
    """`reduce_sorted` of the products left_i right_i', which are formed some rows at a time."""
    shape = left.shape[1], right.shape[1]

    def rows(start: Array | int, number: int) -> Array:
        some = jax.lax.dynamic_slice_in_dim(left, start, number, axis=1)
        return (some[:, :, None] * right[:, None, :]).reshape(left.shape[0], -1)

    like = jax.eval_shape(jnp.multiply, left[:, :1], right[:, :1])
    return _in_blocks(reduce, rows, *shape, like, at_once=False).reshape(shape)


def sort_examples(examples: Float[Array | np.ndarray, "n ..."]) -> Float[Array, "n ..."]:
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
    """The layers of the bitonic sorter, as (half, mirrored) pairs.

    In runs of 2 `half` wires, each wire of the first half is compared with the one `half` further
    on, or mirrored, with the last but so many.
    """
    half = 1
    while half < wires:  # runs of `half` wires are in order; merge them in pairs
        yield half, True
        distance = half // 2
        while distance:
            yield distance, False
            distance //= 2
        half *= 2


def _sorted_rows(rows: list[Array | np.ndarray], wires: int) -> list[Array | np.ndarray]:
    """The rows sorted elementwise, by one comparison after the other."""
    for half, mirrored in _layers(wires):
        for start in range(0, wires, 2 * half):
            for i in range(start, start + half):
                j = 2 * start + 2 * half - 1 - i if mirrored else i + half
                if j < len(rows):
                    rows[i], rows[j] = jnp.minimum(rows[i], rows[j]), jnp.maximum(rows[i], rows[j])
    return rows


def _exchange(x: Array, half: int, mirrored: bool) -> Array:
    """The array after one layer of comparisons."""
    pairs = x.reshape(-1, 2, half, *x.shape[1:])
    low, high = pairs[:, 0], pairs[:, 1]
    if mirrored:
        high = high[:, ::-1]
    low, high = jnp.minimum(low, high), jnp.maximum(low, high)
    if mirrored:
        high = high[:, ::-1]
    return jnp.stack([low, high], axis=1).reshape(x.shape)


def _in_blocks(
    reduce: Callable[[Array], Array],
    take: Callable[[Array | int, int], Array],
    number: int,
    width: int,
    like: Array | jax.ShapeDtypeStruct,
    at_once: bool,
) -> Array:
    """The values of `reduce` at the sorted values, computed for some coordinates at a time.

    Args:
        reduce: As in `reduce_sorted`.
        take: `(start, units) -> values`, the unsorted values (n, units * width) of these units.
        number: The number of units.
        width: The number of coordinates of each.
        like: An array or shape with the n and the dtype of the values.
        at_once: Whether to take them all in one block.
    """
    length, dtype = like.shape[0], like.dtype
    if number * width == 0:
        return jnp.zeros(number * width, dtype)

    def reduced(start: Array | int, units: int) -> Array:
        values = take(start, units)
        wide = values.astype(jnp.promote_types(dtype, jnp.float32))
        return reduce(sort_examples(wide)).astype(dtype)

    def blocks(block_bytes: int) -> Array:
        units = max(1, block_bytes // (max(4, dtype.itemsize) * length * width))
        if units >= number:
            return reduced(0, number)
        # The last block overlaps the one before it, so that one network is compiled and not two.
        whole, rest = divmod(number, units)
        starts = [i * units for i in range(whole)] + [number - units] * (rest > 0)
        results = jax.lax.map(lambda start: reduced(start, units), jnp.array(starts))
        return jnp.concatenate([results[:whole].reshape(-1), results[-1, (units - rest) * width :]])

    if at_once:
        return reduced(0, number)
    # Bytes of a block: on a CPU a core's cache, elsewhere only a bound on the memory.
    return jax.lax.platform_dependent(cpu=lambda: blocks(2**21), default=lambda: blocks(2**28))
