"""Sums and inner products of per-example gradients, taken from their factors where they have some.

The gradient of example i for a matrix that enters through one product out = x W is the outer
product of its activation x_i and its cotangent d_i. Hence |g_i|^2 = |x_i|^2 |d_i|^2 and
g_i . g_j = (x_i . x_j) (d_i . d_j), and nothing of size examples times parameters is formed.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from igr.per_example.example_axis import is_floating, num_examples
from igr.per_example.factors import Factors, per_example_factors

HIGHEST = jax.lax.Precision.HIGHEST  # TF32 products would lose half of the digits on a GPU

Gradients = list[Factors | Array]  # one entry a leaf: factors, or the gradients one by one


def factored_gradients(
    example_loss_fn: Callable[[PyTree, PyTree], Any], params: PyTree, batch: PyTree
) -> Gradients:
    """The gradients of all examples for the floating leaves, in float32 or wider.

    Args:
        example_loss_fn: `(params, example) -> scalar`.
        params: Any pytree with floating leaves.
        batch: A pytree of arrays with a leading axis of n examples.

    Returns:
        For each leaf `Factors`, or an array (n, entries).

    Raises:
        ValueError: As `igr.per_example.per_example_gradients`.
    """
    gradients = per_example_factors(example_loss_fn, params, batch)
    leaves = jax.tree.leaves(eqx.filter(gradients, is_floating), is_leaf=_is_factors)
    return [
        Factors(_rows(leaf.left), _rows(leaf.right)) if _is_factors(leaf) else _rows(leaf)
        for leaf in leaves
        if _is_factors(leaf) or leaf.size  # a leaf may be an empty array
    ]


def total(gradient: Factors | Array) -> Array:
    """The sum of the gradients of a leaf, as large as the leaf."""
    if isinstance(gradient, Factors):
        return jnp.tensordot(gradient.left, gradient.right, (0, 0), precision=HIGHEST)
    return jnp.sum(gradient, axis=0)


def squares(gradients: Gradients) -> Float[Array, " n"]:
    """|g_i|^2 of every example."""
    return _added(
        [
            _row_squares(g.left) * _row_squares(g.right)
            if isinstance(g, Factors)
            else _row_squares(g)
            for g in gradients
        ]
    )


def gram(rows: Gradients, columns: Gradients) -> Float[Array, "n m"]:
    """g_i . g_j for the examples of two sets of gradients of the same leaves."""

    def leaf(a: Factors | Array, b: Factors | Array) -> Array:
        if isinstance(a, Factors) and isinstance(b, Factors):
            return _row_products(a.left, b.left) * _row_products(a.right, b.right)
        if isinstance(a, Factors) or isinstance(b, Factors):
            raise ValueError("one example of other must have the shapes of one example of batch.")
        return _row_products(a, b)

    return _added([leaf(a, b) for a, b in zip(rows, columns, strict=True)])


def scaled_to_one(gradients: Gradients) -> Gradients:
    """The gradients of each example times a positive number, so that their largest entry is one.

    Products of what this returns can neither underflow nor overflow. Zero gradients stay zero.
    """
    sizes = jnp.stack([_row_largest(g) for g in gradients])
    largest = jnp.max(sizes, axis=0)

    def leaf(g: Factors | Array, size: Array) -> Factors | Array:
        if not isinstance(g, Factors):
            return g / _or_one(largest)[:, None]
        # each factor to a largest entry of one first: their product may be out of range itself
        left, right = (a / _or_one(jnp.max(jnp.abs(a), axis=1))[:, None] for a in g)
        return Factors(left * (size / _or_one(largest))[:, None], right)

    return [leaf(g, size) for g, size in zip(gradients, sizes, strict=True)]


def entries_kept(gradients: Gradients) -> int:
    """How many numbers an example takes in the leaves that have no factors (shapes suffice)."""
    return sum(g.shape[1] for g in gradients if not isinstance(g, Factors))


def require_alike(name: str, batch: PyTree, expected_name: str, expected: PyTree) -> None:
    """An error unless one example of a batch has the shapes of one of the other."""
    num_examples(expected)
    num_examples(batch)
    got, wanted = (jax.tree.map(lambda x: jnp.shape(x)[1:], b) for b in (batch, expected))
    if got != wanted:
        raise ValueError(
            f"an example of {name} must have the structure and shapes of one of {expected_name}; "
            f"got {got}, expected {wanted}."
        )


def _is_factors(leaf: Any) -> bool:
    return isinstance(leaf, Factors)


def _rows(a: Array) -> Array:
    """One row an example, in float32 or wider."""
    return a.reshape(a.shape[0], -1).astype(jnp.promote_types(a.dtype, jnp.float32))


def _row_largest(g: Factors | Array) -> Array:
    """The largest entry of the gradient of each example in a leaf, by magnitude."""
    if isinstance(g, Factors):
        return _row_largest(g.left) * _row_largest(g.right)
    return jnp.max(jnp.abs(g), axis=1)


def _or_one(a: Array) -> Array:
    return jnp.where(a > 0, a, 1)


def _row_squares(a: Array) -> Array:
    return jnp.sum(a * a, axis=1)


def _row_products(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b.T, precision=HIGHEST)


def _added(terms: list[Array]) -> Array:
    return sum(terms[1:], start=terms[0])
