"""Sums and inner products of per-example gradients, computed from their factors where possible.

The gradient of example i for a matrix that enters through one product out = x W is the outer
product of its activation x_i and its cotangent d_i. Hence |g_i|^2 = |x_i|^2 |d_i|^2 and
g_i . g_j = (x_i . x_j) (d_i . d_j), and nothing of size examples times parameters is formed.

A matrix used at several positions p, as in convolutions and sequences, has g_i = sum_p x_ip d_ip',
and both become sums over pairs of positions. Where that is more work than to form g_i for this
matrix alone, which is a product of two matrices an example, g_i is formed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from igr.per_example.factors import Factors, PositionFactors, per_example_factors
from igr.pytrees import num_examples, shapes, trained_part

HIGHEST = jax.lax.Precision.HIGHEST  # TF32 products would lose half of the digits on a GPU

Gradient = Factors | PositionFactors | Array  # of one leaf: factors, or the gradients one by one
Gradients = list[Gradient]


def factored_gradients(
    example_loss_fn: Callable[[PyTree, PyTree], Any], params: PyTree, batch: PyTree
) -> Gradients:
    """The gradients of all examples for the floating leaves, in float32 or wider.

    Args:
        example_loss_fn: `(params, example) -> scalar`.
        params: Any pytree with floating leaves.
        batch: A pytree of arrays with a leading axis of n examples.

    Returns:
        For each leaf `Factors`, `PositionFactors`, or an array (n, entries).

    Raises:
        ValueError: As `igr.per_example.per_example_gradients`.
    """
    gradients = per_example_factors(example_loss_fn, params, batch, positions=True)
    leaves = jax.tree.leaves(trained_part(gradients), is_leaf=_is_factored)
    return [
        type(leaf)(*map(_widened, leaf)) if _is_factored(leaf) else _rows(leaf)
        for leaf in leaves
        if _is_factored(leaf) or leaf.size  # a leaf may be an empty array
    ]


def total(gradient: Gradient) -> Array:
    """The sum of the gradients of a leaf, as large as the leaf."""
    if isinstance(gradient, Factors | PositionFactors):
        axes = tuple(range(gradient.left.ndim - 1))
        return jnp.tensordot(*gradient, (axes, axes), precision=HIGHEST)
    return jnp.sum(gradient, axis=0)


def squares(gradients: Gradients) -> Float[Array, " n"]:
    """The squared norm |g_i|^2 of every example's gradient, (n,)."""

    def leaf(g: Gradient) -> Array:
        if isinstance(g, Factors):
            return _row_squares(g.left) * _row_squares(g.right)
        if not isinstance(g, PositionFactors):
            return _row_squares(g)
        if not pairs_are_less_for_squares(*g):
            return _row_squares(formed(g))
        lefts, rights = (jnp.einsum("npa,nra->npr", a, a, precision=HIGHEST) for a in centred(*g))
        return jnp.maximum(jnp.sum(lefts * rights, axis=(1, 2)), 0)  # rounding leads below

    return _added([leaf(g) for g in gradients])


def gram(rows: Gradients, columns: Gradients) -> Float[Array, "n m"]:
    """The inner products g_i . g_j of two sets of gradients of the same leaves, (n, m)."""

    def leaf(a: Gradient, b: Gradient) -> Array:
        if isinstance(a, Factors) and isinstance(b, Factors):
            return _row_products(a.left, b.left) * _row_products(a.right, b.right)
        if isinstance(a, PositionFactors) and isinstance(b, PositionFactors):
            if not pairs_are_less_for_products(a.left, a.right, b.right):
                return _row_products(formed(a), formed(b))
            return over_pairs(
                lambda a, b: _row_products(a[0], b[0]) * _row_products(a[1], b[1]),
                centred(*a),
                centred(*b),
            )
        if isinstance(a, tuple) or isinstance(b, tuple):
            raise ValueError("one example of other must have the shapes of one example of batch.")
        return _row_products(a, b)

    return _added([leaf(a, b) for a, b in zip(rows, columns, strict=True)])


def formed(gradient: PositionFactors) -> Float[Array, "n ab"]:
    """The gradients of one leaf, formed from their factors: one row for each example."""
    products = jnp.einsum("npa,npb->nab", *gradient, precision=HIGHEST)
    return products.reshape(len(products), -1)


def centred(left: Array, right: Array) -> tuple[Array, Array]:
    """Factors of the same gradient, with each factor's mean over positions split off.

    sum_p x_p d_p' = sum_p (x_p - m) (d_p - n)' + m (sum_p d_p)'. Where features have a mean far
    above their spread, products over pairs of positions are of the size of its square and cancel:
    to nothing where the cotangents add up to zero, as those of the keys of an attention do; and the
    other way round.
    """
    positions = max(1, left.shape[-2])
    mean = jnp.sum(left, axis=-2, keepdims=True) / positions
    total = jnp.sum(right, axis=-2, keepdims=True)
    left = jnp.concatenate([left - mean, mean], -2)
    return left, jnp.concatenate([right - total / positions, total], -2)


def over_pairs(
    product: Callable[[tuple[Array, ...], tuple[Array, ...]], Array],
    rows: tuple[Array, ...],
    columns: tuple[Array, ...],
) -> Array:
    """The sum of `product(row arrays at p, column arrays at r)` over pairs of positions p, r.

    Pairs are taken one after the other, in the memory of a single Gram matrix. The
    positions are the last axis but one of every array.
    """
    positions = rows[0].shape[-2], columns[0].shape[-2]

    def at(arrays: tuple[Array, ...], p: Array) -> tuple[Array, ...]:
        return tuple(jax.lax.dynamic_index_in_dim(a, p, a.ndim - 2, keepdims=False) for a in arrays)

    @jax.checkpoint  # what its derivative needs of all pairs would take that memory too
    def add(found: Array, pair: Array) -> tuple[Array, None]:
        p, r = jnp.divmod(pair, positions[1])
        return found + product(at(rows, p), at(columns, r)), None

    zero = jnp.zeros((), jnp.int32)
    shape = jax.eval_shape(lambda: product(at(rows, zero), at(columns, zero)))
    pairs = jnp.arange(positions[0] * positions[1], dtype=jnp.int32)
    return jax.lax.scan(add, jnp.zeros(shape.shape, shape.dtype), pairs)[0]


def pairs_are_less_for_squares(left: Any, right: Any) -> bool:
    """Whether squared norms cost less over pairs of positions than from formed gradients."""
    positions, a, b = left.shape[-2], left.shape[-1], right.shape[-1]
    return positions * (a + b) < a * b


def pairs_are_less_for_products(left: Any, right: Any, other_right: Any) -> bool:
    """Whether inner products cost less over pairs of positions than from formed gradients.

    `right` may have an axis of outputs, which `left` shares. The multiplications are
    rows * columns * positions^2 (b + a / outputs^2) over pairs; a b (rows + columns) positions to
    form the gradients, and rows * columns * a b for their products.
    """
    positions, a, b = left.shape[-2], left.shape[-1], right.shape[-1]
    rows, columns = (int(np.prod(d.shape[:-2])) for d in (right, other_right))
    outputs = rows // left.shape[0]
    over_pairs = rows * columns * positions**2 * (b + a / outputs**2)
    return over_pairs < a * b * ((rows + columns) * positions + rows * columns)


def scaled_to_one(gradients: Gradients) -> Gradients:
    """The gradients of each example times a positive number that makes their largest entry one.

    Products of these gradients can neither underflow nor overflow. Zero gradients stay zero.
    """
    sizes = jnp.stack([_row_largest(g) for g in gradients])
    largest = jnp.max(sizes, axis=0)

    def leaf(g: Gradient, size: Array) -> Gradient:
        if not isinstance(g, tuple):
            return g / _or_one(largest)[:, None]
        # each factor to a largest entry of one first: their product may be out of range itself
        left, right = (_times(1 / _or_one(_largest(a)), a) for a in g)
        return type(g)(_times(size / _or_one(largest), left), right)

    return [leaf(g, size) for g, size in zip(gradients, sizes, strict=True)]


def entries_kept(gradients: list[Any]) -> int:
    """The numbers held for an example in leaves without `Factors`; shapes of gradients suffice."""

    def leaf(g: Any) -> int:
        if isinstance(g, PositionFactors):
            a, b = g.left.shape[-1], g.right.shape[-1]
            pairs = pairs_are_less_for_squares(*g)
            return sum(f.size for f in g) // len(g.left) + (
                g.left.shape[1] ** 2 if pairs else a * b
            )
        return 0 if isinstance(g, Factors) else g.shape[1]

    return sum(map(leaf, gradients))


def require_alike(name: str, batch: PyTree, expected_name: str, expected: PyTree) -> None:
    """Raises `ValueError` unless examples of two batches have the same structure and shapes."""
    num_examples(expected)
    num_examples(batch)
    got, wanted = (
        {path: shape[1:] for path, shape in shapes(b).items()} for b in (batch, expected)
    )
    if got != wanted or jax.tree.structure(batch) != jax.tree.structure(expected):
        raise ValueError(
            f"an example of {name} must have the structure and shapes of one of {expected_name}; "
            f"got {got.get('.', got)}, expected {wanted.get('.', wanted)}."  # one array: its shape
        )


def _is_factored(leaf: Any) -> bool:
    return isinstance(leaf, Factors | PositionFactors)


def _widened(a: Array) -> Array:
    return a.astype(jnp.promote_types(a.dtype, jnp.float32))


def _rows(a: Array) -> Array:
    """The array with one row for each example, in float32 or wider."""
    return _widened(a.reshape(a.shape[0], -1))


def _row_largest(g: Gradient) -> Array:
    """The largest magnitude of an entry in each example's gradient of a leaf, (n,).

    For several positions an estimate: the product of the largest entries of both factors.
    """
    return _largest(g.left) * _largest(g.right) if isinstance(g, tuple) else _largest(g)


def _largest(a: Array) -> Array:
    return jnp.max(jnp.abs(a), axis=tuple(range(1, a.ndim)), initial=0)


def _times(scale: Array, a: Array) -> Array:
    """An array with every example multiplied by its own number."""
    return a * scale.reshape(-1, *(1,) * (a.ndim - 1))


def _or_one(a: Array) -> Array:
    return jnp.where(a > 0, a, 1)


def _row_squares(a: Array) -> Array:
    return jnp.sum(a * a, axis=1)


def _row_products(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b.T, precision=HIGHEST)


def _added(terms: list[Array]) -> Array:
    return sum(terms[1:], start=terms[0])
