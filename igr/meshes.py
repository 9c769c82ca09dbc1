"""Functions over a batch on meshes of any kind of axes.

On a mesh with explicit axes, the kind that `jax.make_mesh` makes by default, an array's sharding is
part of its type, and an operation whose result could be laid out in several ways is refused until
somebody says which. To add up over a batch in parts, to sort examples or to draw a few of them is
full of such operations, and no layout in between is of interest: the compiler may choose them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import PyTree

P = ParamSpec("P")
R = TypeVar("R")


def on_any_mesh(fn: Callable[P, R] | None = None, *, like: int | None = None) -> Any:
    """Makes a function of sharded arrays work where the axes of their mesh are explicit.

    Inside, the axes are automatic; the results come back replicated, or laid out as an argument.
    Elsewhere the function is left as it is.

    Args:
        fn: A function of pytrees of arrays and anything else, of which it returns the same.
        like: The position of an argument: trailing axes of the results are laid out as its own, all
            alike if it is one array, else leaf by leaf.

    >>> import jax.numpy as jnp
    >>> total = on_any_mesh(lambda x: jnp.sum(x.reshape(2, -1), axis=1))
    >>> print(total(jnp.arange(4)))
    [1 5]
    """
    if fn is None:
        return functools.partial(on_any_mesh, like=like)

    @functools.wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        mesh = explicit_mesh((args, kwargs))
        if mesh is None:
            return fn(*args, **kwargs)
        try:
            result = _automatic(fn, mesh, args, kwargs)
        except (ValueError, TypeError, NotImplementedError) as error:
            # A function that closes over arrays of the mesh cannot leave it: as it is, or not.
            try:
                return fn(*args, **kwargs)
            except Exception:
                raise error from None
        return result if like is None else _laid_out(result, args[like], mesh)

    return call


def explicit_mesh(tree: PyTree) -> Any:
    """The mesh with explicit axes that arrays of a tree lie on, None if there is none."""
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.Array):
            mesh = getattr(jax.typeof(leaf).sharding, "mesh", None)
            if mesh is not None and AxisType.Explicit in mesh.axis_types:
                return mesh
    return None


def in_parts(batch: PyTree, chunk: int) -> tuple[PyTree, PyTree]:
    """A batch cut into parts of so many examples, and the examples left over.

    Where the examples are spread over explicit axes of a mesh, so are those of every part, if their
    number allows; else every device has them all.

    Args:
        batch: Arrays with a leading axis of n examples.
        chunk: How many make a part.

    Returns:
        Arrays with leading axes of n // chunk parts and `chunk` examples, and arrays of the last
        n % chunk examples.
    """

    def cut(x: Any) -> tuple[Any, Any]:
        parts, mesh = x.shape[0] // chunk, explicit_mesh(x)
        first, *others = _spec(x) if mesh is not None else (None,)
        if first is None or mesh is None:
            return _cut(x, parts, chunk)
        x = jax.sharding.reshard(x, NamedSharding(mesh, PartitionSpec(None, *others)))
        whole, last = _cut(x, parts, chunk)
        names = first if isinstance(first, tuple) else (first,)
        if chunk % math.prod(mesh.shape[name] for name in names) == 0:
            spec = PartitionSpec(None, first, *others)
            whole = jax.sharding.reshard(whole, NamedSharding(mesh, spec))
        return whole, last

    leaves, structure = jax.tree.flatten(batch)
    pairs = [cut(x) for x in leaves]
    return structure.unflatten([a for a, _ in pairs]), structure.unflatten([b for _, b in pairs])


def _cut(x: Any, parts: int, chunk: int) -> tuple[Any, Any]:
    return x[: parts * chunk].reshape(parts, chunk, *x.shape[1:]), x[parts * chunk :]


def _spec(x: jax.Array) -> tuple[Any, ...]:
    """The mesh axes of every axis of an array."""
    spec = getattr(jax.typeof(x).sharding, "spec", ())
    return (*spec, *[None] * (x.ndim - len(spec)))


def _automatic(fn: Callable[..., Any], mesh: Any, args: Any, kwargs: Any) -> Any:
    leaves, structure = jax.tree.flatten((args, kwargs))
    moving = [isinstance(x, jax.Array) for x in leaves]
    found: list[Any] = []

    def run(*arrays: jax.Array) -> list[Any]:
        following = iter(arrays)
        whole = [next(following) if m else x for m, x in zip(moving, leaves, strict=True)]
        args, kwargs = jax.tree.unflatten(structure, whole)
        results, form = jax.tree.flatten(fn(*args, **kwargs))
        found[:] = [form, [None if isinstance(x, jax.Array) else (x,) for x in results]]
        return [x for x in results if isinstance(x, jax.Array)]

    replicated = NamedSharding(mesh, PartitionSpec())
    automatic: Any = jax.sharding.auto_axes(run, out_sharding=replicated)
    arrays = iter(automatic(*[x for m, x in zip(moving, leaves, strict=True) if m]))
    form, fixed = found
    return jax.tree.unflatten(form, [next(arrays) if x is None else x[0] for x in fixed])


def _laid_out(result: PyTree, like: PyTree, mesh: Any) -> PyTree:
    models = [x for x in jax.tree.leaves(like) if isinstance(x, jax.Array)]
    leaves, structure = jax.tree.flatten(result)
    arrays = [i for i, x in enumerate(leaves) if isinstance(x, jax.Array)]
    if len(models) == 1:
        models = models * len(arrays)
    if len(models) != len(arrays):
        return result
    for i, model in zip(arrays, models, strict=True):
        axes = [*[None] * leaves[i].ndim, *_spec(model)]
        own = axes[len(axes) - leaves[i].ndim :]
        if any(a is not None for a in own):
            leaves[i] = jax.sharding.reshard(leaves[i], NamedSharding(mesh, PartitionSpec(*own)))
    return jax.tree.unflatten(structure, leaves)
