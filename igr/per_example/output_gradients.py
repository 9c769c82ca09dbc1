"""The gradients of every output of every example as factors, each activation held once.

The gradient of output o of example i for a matrix that enters as one product out = x W is the outer
product of its activation x_i, which knows no o, and a cotangent d_io. Products of two gradients are
(x_i . x_j) (d_io . d_jp). At several positions both have one more axis, as in
`igr.per_example.inner_products`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from igr.per_example.inner_products import (
    HIGHEST,
    centred,
    factored_gradients,
    over_pairs,
    pairs_are_less_for_products,
    pairs_are_less_for_squares,
)
from igr.per_example.outputs import output_dimension
from igr.pytrees import num_examples

# One entry a leaf: the arrays whose outer product the gradients are, or the one array they are.
# An array has the shape (n, q, k), or (n, 1, k) where it is the same for all q outputs; of two with
# positions (n, q, p, k) the sum over p is meant.
OutputGradients = list[tuple[Array, ...]]


def output_gradients(
    apply_fn: Callable[[PyTree, Any], Any], params: PyTree, x: PyTree
) -> OutputGradients:
    """The gradients of the q outputs of each of the n examples, for each leaf its factors.

    Args:
        apply_fn: `(params, x) -> outputs (q,)`, or a scalar, for one x.
        params: Any pytree with floating leaves.
        x: A pytree of arrays with a leading axis of n examples.

    Raises:
        ValueError: As `output_dimension` and `factored_gradients`.
    """
    n, q = num_examples(x), output_dimension(apply_fn, params, x)

    def one_output(weights: Array) -> list[Any]:
        def weighted(params: PyTree, example: PyTree) -> Array:
            x, weights = example
            return jnp.vdot(weights, jnp.ravel(apply_fn(params, x)), precision=HIGHEST)

        batch = x, jnp.broadcast_to(weights, (n, q))
        return [tuple(jax.tree.leaves(g)) for g in factored_gradients(weighted, params, batch)]

    example = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), x)
    dtype = jax.eval_shape(lambda example: apply_fn(params, example), example).dtype
    identity = jnp.eye(q, dtype=dtype)
    program, shapes = jax.make_jaxpr(one_output, return_shape=True)(identity[0])
    leaves = jax.vmap(jex.jaxpr_as_fun(program), out_axes=1)(identity)
    leaves = [
        leaf if varies else leaf[:, :1]
        for leaf, varies in zip(leaves, _varies(program.jaxpr), strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def output_gram(rows: OutputGradients, columns: OutputGradients, q: int) -> Float[Array, "nq mq"]:
    """The inner products of all pairs of gradients, (n q, m q), an example's outputs adjacent."""

    def leaf(a: tuple[Array, ...], b: tuple[Array, ...]) -> Float[Array, "n q m q"]:
        found = jnp.ones((), a[0].dtype)
        for factor in zip(a, b, strict=True):
            found = found * jnp.tensordot(*factor, (2, 2), precision=HIGHEST)
        return found

    found = jnp.zeros((), rows[0][0].dtype)
    for a, b in zip(rows, columns, strict=True):
        if _has_positions(a) and _over_pairs(a, b):
            found = found + over_pairs(leaf, centred(*a), centred(*b))
        else:
            found = found + leaf(_one_position(a), _one_position(b))
    n, m = rows[0][0].shape[0], columns[0][0].shape[0]
    return jnp.broadcast_to(found, (n, q, m, q)).reshape(n * q, m * q)


def less_their_mean(gradients: OutputGradients, q: int, most: int) -> OutputGradients:
    """The gradients of each output minus their mean over examples, for leaves small enough to form.

    Centring the products afterwards would lose all digits where the mean is far above the spread.

    Args:
        gradients: As `output_gradients` returns them.
        q: The number of outputs.
        most: How many numbers those of a leaf may fill; a leaf of more is left as it is.
    """

    def leaf(arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        if len(arrays) == 2:
            entries = arrays[0].shape[-1] * arrays[1].shape[-1]
            if len(arrays[0]) * q * entries > most:
                return arrays
            if not _has_positions(arrays):
                left, right = (jnp.broadcast_to(a, (len(a), q, a.shape[2])) for a in arrays)
                left, right = left[..., None], right[:, :, None]
                arrays = ((left * right).reshape(len(left), q, entries),)
        (formed,) = _one_position(arrays)
        return (formed - jnp.mean(formed, axis=0, keepdims=True),)

    return [leaf(arrays) for arrays in gradients]


def square_sums(gradients: OutputGradients, q: int) -> Float[Array, " n"]:
    """The sum of the squared norms of the q gradients of every example, (n,)."""

    def leaf(arrays: tuple[Array, ...]) -> Float[Array, "n q"]:
        if _has_positions(arrays) and pairs_are_less_for_squares(*arrays):
            pair = centred(*arrays)
            left, right = (jnp.einsum("nopa,nora->nopr", a, a, precision=HIGHEST) for a in pair)
            return jnp.maximum(jnp.sum(left * right, axis=(2, 3)), 0)  # rounding leads below
        found = jnp.ones((), arrays[0].dtype)
        for a in _one_position(arrays):
            found = found * jnp.sum(a * a, axis=2)
        return found

    found = jnp.zeros((), gradients[0][0].dtype)
    for arrays in gradients:
        n = arrays[0].shape[0]
        found = found + jnp.sum(jnp.broadcast_to(leaf(arrays), (n, q)), axis=1)
    return found


def numbers_kept(gradients: list[tuple[Any, ...]]) -> int:
    """How many numbers `square_sums` holds, formed gradients included; shapes suffice."""

    def leaf(arrays: tuple[Any, ...]) -> int:
        if not _has_positions(arrays):
            return 0
        if pairs_are_less_for_squares(*arrays):
            return sum(a.size // max(1, a.shape[3]) * a.shape[2] for a in arrays)
        return _size_formed(arrays)

    return _size(gradients) + sum(map(leaf, gradients))


def numbers_kept_for_products(rows: list[tuple[Any, ...]], columns: list[tuple[Any, ...]]) -> int:
    """How many numbers `output_gram` holds besides its result; shapes suffice."""
    found = 0
    for gradients in [rows] if columns is rows else [rows, columns]:
        found += _size(gradients)
        for own, a, b in zip(gradients, rows, columns, strict=True):
            if _has_positions(own) and not _over_pairs(a, b):
                found += _size_formed(own)
    return found


def _size(gradients: list[tuple[Any, ...]]) -> int:
    return sum(a.size for arrays in gradients for a in arrays)


def _size_formed(arrays: tuple[Any, ...]) -> int:
    left, right = arrays
    return max(left.shape[1], right.shape[1]) * len(left) * left.shape[3] * right.shape[3]


def _has_positions(arrays: tuple[Any, ...]) -> bool:
    return arrays[0].ndim == 4


def _one_position(arrays: tuple[Array, ...]) -> tuple[Array, ...]:
    """The gradients formed where they are sums over positions; otherwise unchanged."""
    if not _has_positions(arrays):
        return arrays
    left, right = arrays
    q = max(left.shape[1], right.shape[1])
    if left.shape[1] == 1:
        found = jnp.einsum("npa,nopb->noab", left[:, 0], right, precision=HIGHEST)
    else:
        right = jnp.broadcast_to(right, (len(right), q, *right.shape[2:]))
        found = jnp.einsum("nopa,nopb->noab", left, right, precision=HIGHEST)
    return (found.reshape(*found.shape[:2], -1),)


def _over_pairs(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    (left, right), (_, other_right) = a, b
    return pairs_are_less_for_products(left, right, other_right)


def _varies(jaxpr: jex.Jaxpr) -> list[bool]:
    """Which results of a program may depend on its arguments, a list of bools."""
    touched = set(jaxpr.invars)
    for eqn in jaxpr.eqns:
        if any(v in touched for v in eqn.invars if not isinstance(v, jex.Literal)):
            touched.update(eqn.outvars)
    return [not isinstance(v, jex.Literal) and v in touched for v in jaxpr.outvars]
