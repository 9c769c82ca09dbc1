"""Linear algebra on vectors that are pytrees, and on bases of such vectors.

Arithmetic goes leaf by leaf, without raveling, and keeps each leaf's sharding. A *vector* has the
structure of the parameters, with None where they hold something that is not a floating array; a
*basis* is a vector whose leaves carry a leading axis, or the two of a `Divided` one. Solvers keep
both in at least float32, whatever the parameters are in: orthogonality does not survive bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable
from math import gcd
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree, UInt32

from igr.checks import Number
from igr.powers_of_two import power_of_two_near
from igr.pytrees import inner_product, same_shapes, shapes

HIGHEST = jax.lax.Precision.HIGHEST  # TF32 products would undo the orthogonalization on a GPU
BLOCK = 2**14  # entries of a large leaf; as many, or some more, `transformed` takes at a time
FEW = 3  # rows that are added one by one
UNROLLED = 16  # rows of large leaves that are, which is fast to run and slow to compile
SHARDS = 64  # the most of an axis, in powers of two, that `transformed` leaves where they are


class Divided(NamedTuple):
    """A basis in two blocks of rows, so that the first can be returned without a copy."""

    first: PyTree
    rest: PyTree


def require_like(name: str, vector: PyTree, like: PyTree, leading: tuple[int, ...] = ()) -> None:
    """Raises `ValueError` unless `vector` has the structure and the shapes of `like`."""
    if not same_shapes(vector, like, leading):
        axis = f" and a leading axis of {leading[0]}" if leading else ""
        got, expected = shapes(vector), {k: leading + s for k, s in shapes(like).items()}
        if got == expected:  # the same leaves, held by other containers
            got, expected = jax.tree.structure(vector), jax.tree.structure(like)
        raise ValueError(
            f"{name} must have the structure and shapes of params{axis}; "
            f"got {got}, expected {expected}."
        )


def size(vector: PyTree) -> int:
    """The number of entries of a vector."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(vector))


def working_dtype(vector: PyTree) -> Any:
    """The dtype for scalars and small matrices beside a vector: its own, at least float32."""
    return jnp.result_type(jnp.float32, *(leaf.dtype for leaf in jax.tree.leaves(vector)))


def widened(vector: PyTree) -> PyTree:
    """The vector with every leaf in at least float32."""
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf, jnp.promote_types(leaf.dtype, jnp.float32)), vector
    )


def cast_like(vector: PyTree, like: PyTree) -> PyTree:
    """The vector with every leaf in the dtype of the same leaf of `like`."""
    return jax.tree.map(lambda leaf, target: jnp.asarray(leaf, target.dtype), vector, like)


def inner(a: PyTree, b: PyTree) -> Float[Array, ""]:
    """The Euclidean inner product of two vectors, a scalar."""
    return inner_product(a, b)


def norm(a: PyTree) -> Float[Array, ""]:
    """The Euclidean norm of a vector, a scalar; entries are scaled so that no square overflows."""
    unit = power_of_two_near(a)
    b = scaled(1 / unit, widened(a))
    return jnp.sqrt(inner(b, b)) * unit


def scaled(factor: Any, a: PyTree) -> PyTree:
    """The vector factor * a, each leaf in its own dtype."""
    return jax.tree.map(lambda x: jnp.asarray(factor, x.dtype) * x, a)


def minus(a: PyTree, b: PyTree) -> PyTree:
    """The difference a - b of two vectors."""
    return jax.tree.map(jnp.subtract, a, b)


def row(basis: PyTree, i: Any) -> PyTree:
    """The vector `i` of a basis."""
    if not isinstance(basis, Divided):
        return jax.tree.map(lambda q: q[i], basis)
    m = rows(basis.first)
    if not rows(basis.rest):
        return row(basis.first, i)
    return jax.tree.map(
        lambda q, r: jnp.where(i < m, q[jnp.minimum(i, m - 1)], r[jnp.maximum(i - m, 0)]), *basis
    )


def with_row(basis: PyTree, i: Any, vector: PyTree) -> PyTree:
    """The basis with `vector` in place of the vector `i`."""
    if not isinstance(basis, Divided):
        return jax.tree.map(lambda q, x: q.at[i].set(x), basis, vector)
    m = rows(basis.first)
    if not rows(basis.rest):
        return Divided(with_row(basis.first, i, vector), basis.rest)

    def once(block: PyTree, j: Any, here: Any) -> PyTree:
        # Loops of one round or none: what else could leave a block as it is would copy it.
        return jax.lax.fori_loop(0, here.astype(int), lambda _, q: with_row(q, j, vector), block)

    i = jnp.asarray(i)
    return Divided(once(basis.first, i, i < m), once(basis.rest, i - m, i >= m))


def rows(basis: PyTree) -> int:
    """The number of vectors in a basis."""
    if isinstance(basis, Divided):
        return rows(basis.first) + rows(basis.rest)
    return jax.tree.leaves(basis)[0].shape[0]


def coordinates(basis: PyTree, a: PyTree) -> Float[Array, " m"]:
    """The inner product of every basis vector with `a`."""
    if isinstance(basis, Divided):
        return jnp.concatenate([coordinates(block, a) for block in basis])
    return _sum_leaves(lambda q, x: jnp.tensordot(q, x, x.ndim, precision=HIGHEST), basis, a)


def combination(weights: Float[Array, " m"], basis: PyTree) -> PyTree:
    """The vector sum_i weights_i basis_i; for a few rows fused into its use and never stored."""
    m = rows(basis)

    def leaf(q: Array) -> Any:
        if m <= (UNROLLED if q.size > m * BLOCK else FEW):
            return sum(weights[i].astype(q.dtype) * q[i] for i in range(m))
        return jnp.tensordot(weights.astype(q.dtype), q, 1, precision=HIGHEST)

    return jax.tree.map(leaf, basis)


def without(w: PyTree, weights: Float[Array, " m"], basis: PyTree) -> PyTree:
    """The vector w - sum_i weights_i basis_i; for blocks of a few rows the sum is never stored."""
    if isinstance(basis, Divided):
        m = rows(basis.first)
        return without(without(w, weights[:m], basis.first), weights[m:], basis.rest)
    return minus(w, combination(weights, basis))


def orthogonalized(
    w: PyTree, basis: PyTree, use: Float[Array, " m"] | Number = 1.0
) -> tuple[PyTree, Float[Array, " m"], Bool[Array, ""]]:
    """`w` minus its projection on the orthonormal `basis`, the coordinates, and a warning.

    A second pass follows where the first reduced the norm to a half or less, and so lost digits
    (Daniel, Gragg, Kaufman and Stewart, 1976). The warning is true where the second does the same:
    `w` is then in the span of the basis to rounding. `use` is 0 for vectors to leave out, else 1.
    """

    def once(carry: Any) -> Any:
        w, total, _ = carry
        before = norm(w)
        h = coordinates(basis, w)
        if not isinstance(use, float):  # what is left out may be too large to multiply
            h = jnp.where(use > 0, h, 0)
        w = without(w, h, basis)
        return w, total + h, norm(w) <= 0.5 * before

    def where_needed(_: Any, carry: Any) -> Any:
        return jax.lax.cond(carry[2], once, lambda carry: carry, carry)

    start = w, jnp.zeros(rows(basis), working_dtype(w)), jnp.asarray(True)
    # A loop, since what is written out twice is compiled twice.
    return jax.lax.fori_loop(0, 2, where_needed, start)


def unit_outside(
    w: PyTree, basis: PyTree, use: Float[Array, " m"] | Number, seed: Any, lost: Any
) -> PyTree:
    """`w`, orthogonal to the basis, at norm one; another such direction where `lost`."""

    def another() -> PyTree:
        once = lambda _, w: orthogonalized(w, basis, use)[0]  # noqa: E731
        return jax.lax.fori_loop(0, 2, once, generic_vector(seed, w))

    w = jax.lax.cond(lost, another, lambda: w)
    length = norm(w)
    return scaled(jnp.where(length > 0, 1 / length, 0), w)


def transformed(basis: Divided, weights: Float[Array, "m m"]) -> Divided:
    """The basis with rows sum_j weights[i, j] basis_j; under jit it overwrites the old one.

    A part of every vector is taken at a time. A part has a share of each of up to `SHARDS` pieces
    of the axis that is cut, so that a sharded axis is not moved.
    """
    m = rows(basis.first)

    def leaf(first: Array, rest: Array) -> tuple[Array, Array]:
        w = weights.astype(first.dtype)

        def turned(blocks: Any) -> Any:
            part = jnp.tensordot(w, jnp.concatenate(blocks), 1, precision=HIGHEST)
            return part[:m], part[m:]

        shape = first.shape[1:]
        total = int(np.prod(shape))
        if total <= 2 * BLOCK:
            return turned((first, rest))
        lengths = [n // gcd(n, SHARDS) for n in shape]  # what each piece has of an axis
        wanted = -(-total // BLOCK)
        # The first axis that can be cut as finely as is wanted, for its parts are contiguous.
        enough = [n >= wanted for n in lengths]
        axis = enough.index(True) if any(enough) else lengths.index(max(lengths))
        pieces, length = shape[axis] // lengths[axis], lengths[axis]
        split = shape[:axis], (pieces, length), shape[axis + 1 :]
        blocks = tuple(q.reshape(q.shape[0], *sum(split, ())) for q in (first, rest))
        cut = axis + 2  # behind the rows and the pieces
        step = _part(length, wanted)

        def at(i: Any, blocks: Any, size: int) -> Any:
            parts = (jax.lax.dynamic_slice_in_dim(q, i, size, cut) for q in blocks)
            parts = turned(tuple(parts))
            return tuple(
                jax.lax.dynamic_update_slice_in_dim(q, part, i, cut)
                for q, part in zip(blocks, parts, strict=True)
            )

        whole = length // step
        blocks = jax.lax.fori_loop(0, whole, lambda i, q: at(i * step, q, step), blocks)
        if length % step:
            blocks = at(whole * step, blocks, length % step)
        return blocks[0].reshape(first.shape), blocks[1].reshape(rest.shape)

    firsts, structure = jax.tree.flatten(basis.first)
    pairs = [leaf(*both) for both in zip(firsts, jax.tree.leaves(basis.rest), strict=True)]
    return Divided(*(jax.tree.unflatten(structure, block) for block in zip(*pairs, strict=True)))


def _part(length: int, wanted: int) -> int:
    """The length of a part: about length / wanted, and a divisor of the length where one is near.

    A remainder would be transformed after the loop, for which the compiler copies the leaf.
    """
    ideal = max(1, length // wanted)
    near = [n for n in range(-(-ideal // 4), 4 * ideal + 1) if length % n == 0]
    return min(near, key=lambda n: max(n / ideal, ideal / n), default=ideal)


def generic_vector(seed: UInt32[Array, ""], like: PyTree) -> PyTree:
    """A fixed pseudorandom vector, entries between -1 and 1, with the shapes and dtypes of `like`.

    A start vector has to be generic, but need not be random, and `jax.random` would be almost half
    of the compile time of a solver. The entries are hashes of their positions (the finalizer of
    MurmurHash3).
    """
    leaves, structure = jax.tree.flatten(like)

    def entries(number: int, leaf: Array) -> Array:
        positions = jax.lax.iota(jnp.uint32, leaf.size).reshape(leaf.shape)
        bits = _mixed(positions ^ _mixed(_mixed(seed) + jnp.uint32(number)))
        return jax.lax.bitcast_convert_type(bits, jnp.int32).astype(leaf.dtype) * 2.0**-31

    return jax.tree.unflatten(structure, [entries(i, leaf) for i, leaf in enumerate(leaves)])


def _mixed(x: Array) -> Array:
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        x = (x ^ (x >> shift)) * jnp.uint32(factor)
    return x


def random_vector(key: PRNGKeyArray, like: PyTree) -> PyTree:
    """A vector of independent standard normal entries, with the shapes and dtypes of `like`."""
    return _drawn(jax.random.normal, key, like)


def random_signs(key: PRNGKeyArray, like: PyTree) -> PyTree:
    """A vector of independent entries 1 or -1, with the shapes and dtypes of `like`."""
    return _drawn(jax.random.rademacher, key, like)


def _drawn(draw: Callable[..., Array], key: PRNGKeyArray, like: PyTree) -> PyTree:
    leaves, structure = jax.tree.flatten(like)
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(
        structure,
        [draw(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)],
    )


def _sum_leaves(fn: Callable[..., Array], *trees: PyTree) -> Array:
    return jax.tree.reduce(jnp.add, jax.tree.map(fn, *trees))
