"""The floating leaves of a pytree as one vector, and a leading axis of such vectors as a basis.

Nothing is raveled: leaf by leaf the arithmetic keeps each leaf's sharding. A *vector* has the
structure of the parameters with `None` where they hold something that is not a floating array; a
*basis* is a vector whose leaves carry a leading axis. Both are kept in at least float32, whatever
the leaves of the parameters are: orthogonality does not survive bfloat16.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

HIGHEST = jax.lax.Precision.HIGHEST  # TF32 products would undo the orthogonalisation on a GPU


def is_floating(leaf: Any) -> bool:
    """Whether a leaf is an array (or the shape of one) of real floating numbers."""
    return isinstance(leaf, jax.Array | np.ndarray | jax.ShapeDtypeStruct) and bool(
        jnp.issubdtype(leaf.dtype, jnp.floating)
    )


def floating_part(tree: PyTree) -> PyTree:
    """The tree with every leaf that is not a floating array replaced by None."""
    return eqx.filter(tree, is_floating)


def require_floating(params: PyTree, name: str = "params") -> PyTree:
    """The floating part of `params`; an error where there is none."""
    vector = floating_part(params)
    if not jax.tree.leaves(vector):
        kinds = sorted({type(leaf).__name__ for leaf in jax.tree.leaves(params)})
        raise ValueError(
            f"{name} must hold at least one floating array; got leaves of {kinds or 'no kind'}."
        )
    return vector


def size(vector: PyTree) -> int:
    """The number of entries."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(vector))


def working_dtype(vector: PyTree) -> jnp.dtype:
    """The dtype in which scalars and small matrices are computed: float32 or wider."""
    return jnp.result_type(jnp.float32, *(leaf.dtype for leaf in jax.tree.leaves(vector)))


def widened(vector: PyTree) -> PyTree:
    """Every leaf in its own dtype or float32, whichever is wider."""
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf, jnp.promote_types(leaf.dtype, jnp.float32)), vector
    )


def cast_like(vector: PyTree, like: PyTree) -> PyTree:
    """Every leaf in the dtype of the same leaf of `like`."""
    return jax.tree.map(lambda leaf, target: leaf.astype(target.dtype), vector, like)


def inner(a: PyTree, b: PyTree) -> Float[Array, ""]:
    """The Euclidean inner product."""
    return sum_leaves(lambda x, y: jnp.vdot(x, y, precision=HIGHEST), a, b)


def norm(a: PyTree) -> Float[Array, ""]:
    """The Euclidean norm."""
    return jnp.sqrt(inner(a, a))


def scaled(factor: Float[Array, ""], a: PyTree) -> PyTree:
    """factor * a, each leaf in its own dtype."""
    return jax.tree.map(lambda x: factor.astype(x.dtype) * x, a)


def coordinates(basis: PyTree, a: PyTree) -> Float[Array, " m"]:
    """The inner product of every basis vector with `a`."""
    return sum_leaves(lambda q, x: jnp.tensordot(q, x, x.ndim, precision=HIGHEST), basis, a)


def combination(weights: Float[Array, "*rows m"], basis: PyTree) -> PyTree:
    """sum_i weights[..., i] basis_i: a vector, or a basis where `weights` has rows."""
    return jax.tree.map(
        lambda q: jnp.tensordot(weights.astype(q.dtype), q, 1, precision=HIGHEST), basis
    )


def random_vector(key: PRNGKeyArray, like: PyTree) -> PyTree:
    """Independent standard normal entries, in the shapes and dtypes of `like`."""
    leaves, structure = jax.tree.flatten(like)
    keys = jax.random.split(key, len(leaves))
    draws = [jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves)]
    return jax.tree.unflatten(structure, draws)


def sum_leaves(fn, *trees: PyTree) -> Any:
    """The sum over the leaves of `fn`."""
    return jax.tree.reduce(jnp.add, jax.tree.map(fn, *trees))
