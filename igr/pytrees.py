"""Which leaves of a pytree are trained, and the example axis of a batch: one definition of each.

A leaf is *trained* where it holds real floating numbers: arrays of JAX and numpy, and the scalars
of numpy and Python, which jit would make arrays of. Integers, bools, keys, functions and None are
held constant. Complex leaves are refused by name: a derivative by a complex number is another thing
in every library, and a silent choice would be wrong in some.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from igr.meshes.explicit_axes import explicit_mesh


def is_trained(leaf: Any) -> bool:
    """Whether a leaf holds real floating numbers: an array, the shape of one, or a scalar.

    >>> import jax.numpy as jnp
    >>> [is_trained(leaf) for leaf in (jnp.ones(2), 1.0, 1, True, None, jnp.arange(2))]
    [True, True, False, False, False, False]
    """
    dtype = _dtype(leaf)
    return dtype is not None and bool(jnp.issubdtype(dtype, jnp.floating))


def partition(params: PyTree, name: str = "params") -> tuple[PyTree, PyTree]:
    """The trained leaves of `params` as arrays, and the others, as trees with None elsewhere.

    Args:
        params: Any pytree.
        name: What to call it in errors.

    Returns:
        Two pytrees, which `combine` puts together again. Scalars and numpy arrays come as arrays
        of JAX, as they would under jit.

    Raises:
        ValueError: If no leaf is trained, or one is complex.

    >>> import jax.numpy as jnp
    >>> partition({"w": jnp.ones(2), "n": 3})
    ({'n': None, 'w': Array([1., 1.], dtype=float64)}, {'n': 3, 'w': None})
    """
    trained = require_trained(params, name)
    return trained, eqx.filter(params, is_trained, inverse=True)


def combine(trained: PyTree, rest: PyTree) -> PyTree:
    """The pytree whose two parts `partition` returned.

    Args:
        trained: A pytree with None for the leaves that are not trained.
        rest: The same with None for those that are.

    >>> combine({"w": 1.0, "n": None}, {"w": None, "n": 3})
    {'n': 3, 'w': 1.0}
    """
    return eqx.combine(trained, rest)


def require_trained(params: PyTree, name: str = "params") -> PyTree:
    """The trained leaves of `params` as arrays, with None for the others.

    Args:
        params: Any pytree.
        name: What to call it in errors.

    Raises:
        ValueError: If there is no trained leaf with an entry, or a complex one.
    """
    trained = trained_part(params, name)
    leaves = jax.tree.leaves(trained)
    if not any(np.prod(leaf.shape) for leaf in leaves):
        kinds = sorted({_kind(leaf) for leaf in jax.tree.leaves(params)})
        empty = f", of shapes {[leaf.shape for leaf in leaves]}" if leaves else ""
        raise ValueError(
            f"{name} must hold at least one floating array; got leaves of type {kinds}{empty}."
        )
    return trained


def trained_part(tree: PyTree, name: str = "params") -> PyTree:
    """The trained leaves as arrays, with None for all others; possibly no trained leaf at all.

    Args:
        tree: Any pytree.
        name: What to call it in errors.

    Raises:
        ValueError: If a leaf is complex.
    """
    reject_complex(tree, name)
    return jax.tree.map(lambda leaf: _as_array(leaf) if is_trained(leaf) else None, tree)


def reject_complex(tree: PyTree, name: str = "params") -> None:
    """Raises `ValueError` if a leaf is complex, with its path.

    Args:
        tree: Any pytree.
        name: What to call it.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        dtype = _dtype(leaf)
        if dtype is not None and jnp.issubdtype(dtype, jnp.complexfloating):
            raise ValueError(
                f"complex leaves are not supported: {name}{jax.tree_util.keystr(path)} is {dtype}. "
                "Keep its real and imaginary parts as two leaves."
            )


def like_params(values: PyTree, params: PyTree) -> PyTree:
    """A tangent in the structure of params: zeros for integer arrays, static leaves unchanged.

    Args:
        values: One array for each trained leaf of params, None for the others.
        params: Any pytree.
    """
    rest = jax.tree.map(
        lambda x: jnp.zeros_like(x) if eqx.is_array(x) else x,
        eqx.filter(params, is_trained, inverse=True),
    )
    return combine(values, rest)


def num_examples(batch: PyTree, name: str = "batch") -> int:
    """The length of the leading axis that every leaf of a batch shares.

    Args:
        batch: A pytree of arrays.
        name: What to call it in errors.

    Raises:
        ValueError: If there is no array or no example, or the leaves disagree.

    >>> import jax.numpy as jnp
    >>> num_examples({"x": jnp.ones((5, 2)), "y": jnp.arange(5)})
    5
    """
    lengths = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
        where = name + jax.tree_util.keystr(path)
        if not isinstance(leaf, jax.Array | np.ndarray | jax.ShapeDtypeStruct) or leaf.ndim == 0:
            raise ValueError(
                f"every leaf of {name} must be an array with a leading example axis; "
                f"{where} is {leaf!r}."
            )
        lengths[where] = leaf.shape[0]
    if not lengths:
        raise ValueError(f"{name} must hold at least one array; it is empty.")
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"the leaves of {name} must agree in their leading example axis; got "
            + ", ".join(f"{length} in {where}" for where, length in lengths.items())
            + "."
        )
    length = next(iter(lengths.values()))
    if length == 0:
        raise ValueError(f"{name} must hold at least one example; it holds 0.")
    return length


def inputs_and_targets(batch: Any, y: Any, x: Any) -> tuple[Any, Any]:
    """The pair (x, y) of inputs and targets, given as one batch or as x and y.

    Args:
        batch: The pair, or x alone if y is given.
        y: The targets, or None.
        x: The inputs in place of `batch`, or None.

    Raises:
        TypeError: If the batch is neither a pair nor given as x and y.
    """
    if y is not None:
        if (batch is None) == (x is None):
            raise TypeError("y must come with x alone: give batch=(x, y), or x and y.")
        return (batch if x is None else x), y
    if x is not None:
        raise TypeError("x must come with y: give batch=(x, y), or x and y.")
    if not (isinstance(batch, tuple | list) and len(batch) == 2):
        kind = type(batch).__name__
        length = f" of length {len(batch)}" if isinstance(batch, tuple | list) else ""
        raise TypeError(f"batch must be the pair (x, y) of inputs and targets; got {kind}{length}.")
    return batch[0], batch[1]


def same_shapes(a: PyTree, b: PyTree, leading: tuple[int, ...] = ()) -> bool:
    """Whether `a` has the structure and shapes of `b`, behind the axes `leading`.

    Structures and lists of leaves are compared, never trees: a class that is registered as a pytree
    need not define equality.

    Args:
        a: A pytree of arrays or shapes.
        b: Another.
        leading: The axes that `a` has before those of `b`.
    """
    if jax.tree.structure(a) != jax.tree.structure(b):
        return False
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(_shape(x) == leading + _shape(y) for x, y in pairs)


def shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    """The shape of every leaf by its path, for errors.

    Args:
        tree: A pytree of arrays.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path) or ".": _shape(leaf) for path, leaf in leaves}


def _dtype(leaf: Any) -> Any:
    """The dtype of an array or a floating or complex scalar; None for anything else."""
    if isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct):
        return leaf.dtype
    if isinstance(leaf, complex):
        return np.dtype(complex)
    return np.dtype(float) if isinstance(leaf, float) else None


def _shape(leaf: Any) -> tuple[int, ...]:
    return tuple(leaf.shape) if hasattr(leaf, "shape") else np.shape(leaf)


def _as_array(leaf: Any) -> Any:
    already = isinstance(leaf, jax.Array | jax.ShapeDtypeStruct)
    return leaf if already else jnp.asarray(leaf)


def _kind(leaf: Any) -> str:
    return f"Array of {leaf.dtype}" if hasattr(leaf, "dtype") else type(leaf).__name__


def inner_product(a: PyTree, b: PyTree) -> Array:
    """The sum of a b over all entries, in the full precision of the dtype on any device.

    Unlike `jnp.vdot` it does not flatten arrays, which would gather sharded ones.

    >>> print(inner_product({"w": jnp.ones((2, 3))}, {"w": 2 * jnp.ones((2, 3))}))
    12.0
    """

    def leaf(x: Array, y: Array) -> Array:
        mesh = explicit_mesh((x, y))
        everywhere = None if mesh is None else NamedSharding(mesh, PartitionSpec())
        return jnp.tensordot(
            x, y, jnp.ndim(x), precision=jax.lax.Precision.HIGHEST, out_sharding=everywhere
        )

    return jax.tree.reduce(jnp.add, jax.tree.map(leaf, a, b))
