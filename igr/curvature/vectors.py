"""The floating leaves of a pytree as one vector, and a leading axis of such vectors as a basis.

Nothing is raveled: leaf by leaf the arithmetic keeps each leaf's sharding. A *vector* has the
structure of the parameters, with None where they hold something that is not a floating array; a
*basis* is a vector whose leaves carry a leading axis. Solvers keep both in at least float32,
whatever the parameters are in: orthogonality does not survive bfloat16.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree, UInt32

from igr.pytrees import same_shapes, shapes

HIGHEST = jax.lax.Precision.HIGHEST  # TF32 products would undo the orthogonalization on a GPU
BLOCK = 2**14  # entries of each vector that `transformed` takes at a time


def require_like(name: str, vector: PyTree, like: PyTree, leading: tuple[int, ...] = ()) -> None:
    """An error where `vector` has not the structure and the shapes of `like`."""
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
    """The number of entries."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(vector))


def working_dtype(vector: PyTree) -> Any:
    """The dtype of scalars and small matrices: float32 or wider."""
    return jnp.result_type(jnp.float32, *(leaf.dtype for leaf in jax.tree.leaves(vector)))


def widened(vector: PyTree) -> PyTree:
    """Every leaf in its own dtype or in float32, whichever is wider."""
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf, jnp.promote_types(leaf.dtype, jnp.float32)), vector
    )


def cast_like(vector: PyTree, like: PyTree) -> PyTree:
    """Every leaf in the dtype of the same leaf of `like`."""
    return jax.tree.map(lambda leaf, target: jnp.asarray(leaf, target.dtype), vector, like)


def inner(a: PyTree, b: PyTree) -> Float[Array, ""]:
    """The Euclidean inner product."""
    return _sum_leaves(lambda x, y: jnp.vdot(x, y, precision=HIGHEST), a, b)


def norm(a: PyTree) -> Float[Array, ""]:
    """The Euclidean norm, of numbers of any size: their squares may be out of the dtype's range."""
    largest = jax.tree.reduce(
        jnp.maximum, jax.tree.map(lambda x: jnp.max(jnp.abs(x), initial=0), a)
    ).astype(working_dtype(a))
    # To the next power of two, which rounds nothing.
    exponent = jnp.clip(jnp.frexp(jax.lax.stop_gradient(largest))[1], -120, 120)
    exponent = jnp.where(jnp.isfinite(largest), exponent, 0)
    one = jnp.ones((), largest.dtype)
    b = scaled(jnp.ldexp(one, -exponent), a)
    return jnp.sqrt(inner(b, b)) * jnp.ldexp(one, exponent)


def scaled(factor: Any, a: PyTree) -> PyTree:
    """factor * a, each leaf in its own dtype."""
    return jax.tree.map(lambda x: jnp.asarray(factor, x.dtype) * x, a)


def minus(a: PyTree, b: PyTree) -> PyTree:
    """a - b."""
    return jax.tree.map(jnp.subtract, a, b)


def row(basis: PyTree, i: Any) -> PyTree:
    """The vector `i`, or the vectors of a slice."""
    return jax.tree.map(lambda q: q[i], basis)


def with_row(basis: PyTree, i: Any, vector: PyTree) -> PyTree:
    """The basis with `vector` in place of the vector `i`."""
    return jax.tree.map(lambda q, x: q.at[i].set(x), basis, vector)


def coordinates(basis: PyTree, a: PyTree) -> Float[Array, " m"]:
    """The inner product of every basis vector with `a`."""
    return _sum_leaves(lambda q, x: jnp.tensordot(q, x, x.ndim, precision=HIGHEST), basis, a)


def combination(weights: Float[Array, " m"], basis: PyTree) -> PyTree:
    """sum_i weights_i basis_i."""
    return jax.tree.map(
        lambda q: jnp.tensordot(weights.astype(q.dtype), q, 1, precision=HIGHEST), basis
    )


def orthogonalized(
    w: PyTree, basis: PyTree, use: Float[Array, " m"] | float = 1.0
) -> tuple[PyTree, Float[Array, " m"], Bool[Array, ""]]:
    """`w` less its part in the orthonormal `basis`, the coordinates of that part, and a warning.

    A second pass follows where the first took half of the norm or more, and with it digits
    (Daniel, Gragg, Kaufman and Stewart, 1976). Where that takes as much again, `w` is in the span
    of the basis to rounding: the warning. `use` is 0 for vectors to leave out.
    """

    def once(carry: Any) -> Any:
        w, total, _ = carry
        before = norm(w)
        h = coordinates(basis, w) * use
        w = minus(w, combination(h, basis))
        return w, total + h, norm(w) <= 0.5 * before

    def where_needed(_: Any, carry: Any) -> Any:
        return jax.lax.cond(carry[2], once, lambda carry: carry, carry)

    rows = jax.tree.leaves(basis)[0].shape[0]
    start = w, jnp.zeros(rows, working_dtype(w)), jnp.asarray(True)
    # A loop, since what is written out twice is compiled twice.
    return jax.lax.fori_loop(0, 2, where_needed, start)


def unit_outside(
    w: PyTree, basis: PyTree, use: Float[Array, " m"] | float, seed: Any, lost: Any
) -> PyTree:
    """`w`, already orthogonal to the basis, at norm one; another direction where it is `lost`."""

    def another() -> PyTree:
        once = lambda _, w: orthogonalized(w, basis, use)[0]  # noqa: E731
        return jax.lax.fori_loop(0, 2, once, generic_vector(seed, w))

    w = jax.lax.cond(lost, another, lambda: w)
    length = norm(w)
    return scaled(jnp.where(length > 0, 1 / length, 0), w)


def transformed(basis: PyTree, weights: Float[Array, "m m"]) -> PyTree:
    """The basis with rows sum_j weights[i, j] basis_j, in place of the old one under jit."""

    def leaf(q: Array) -> Array:
        w = weights.astype(q.dtype)
        flat = q.reshape(q.shape[0], -1)
        blocks, rest = divmod(flat.shape[1], BLOCK)

        def block(i: Any, flat: Array) -> Array:
            part = jax.lax.dynamic_slice_in_dim(flat, i * BLOCK, BLOCK, 1)
            part = jnp.matmul(w, part, precision=HIGHEST)
            return jax.lax.dynamic_update_slice_in_dim(flat, part, i * BLOCK, 1)

        if blocks:
            flat = jax.lax.fori_loop(0, blocks, block, flat)
        if rest:
            last = jnp.matmul(w, flat[:, blocks * BLOCK :], precision=HIGHEST)
            flat = flat.at[:, blocks * BLOCK :].set(last)
        return flat.reshape(q.shape)

    return jax.tree.map(leaf, basis)


def generic_vector(seed: UInt32[Array, ""], like: PyTree) -> PyTree:
    """Entries between -1 and 1 without a pattern, in the shapes and dtypes of `like`.

    A direction to start from has to be like no other, and need not be random: `jax.random` would
    be almost half of what the compiler has to do for a solver. The entries are the hashes of their
    positions (the finalizer of MurmurHash3).
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
    """Independent standard normal entries, in the shapes and dtypes of `like`."""
    return _drawn(jax.random.normal, key, like)


def random_signs(key: PRNGKeyArray, like: PyTree) -> PyTree:
    """Independent entries of 1 or -1, in the shapes and dtypes of `like`."""
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
