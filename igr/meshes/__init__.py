"""Makes functions over a batch work on meshes with explicit axes.

On a mesh with explicit axes, the kind that `jax.make_mesh` makes by default, an array's sharding is
part of its type, and an operation whose result could be laid out in several ways is refused until
somebody says which. To add up over a batch in parts, to sort examples or to draw a few of them is
full of such operations, and no layout in between is of interest: the compiler may choose them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import jax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import PyTree

from igr.meshes.closed_over import with_arrays_as_leaves
from igr.meshes.explicit_axes import explicit_mesh, explicit_mesh_of

P = ParamSpec("P")
R = TypeVar("R")


def on_any_mesh(
    fn: Callable[P, R] | None = None, *, like: int | Callable[..., PyTree] | None = None
) -> Any:
    """Makes a function of sharded arrays work on a mesh with explicit axes.

    Inside, the axes are automatic, except within functions that were `traced` on such a mesh. The
    results come back replicated, or laid out as an argument: no array is whole on a device between.
    Elsewhere the function is left as it is.

    Args:
        fn: A function of pytrees of arrays and anything else, of which it returns the same.
        like: The position of an argument, or a function of all arguments that returns a pytree:
          parts
            of the result with its structure, and with its shapes up to leading axes, are laid out
            as it is.

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
        models: tuple[PyTree, ...] = ()
        if like is not None:
            models = (args[like] if isinstance(like, int) else like(*args, **kwargs),)
        try:
            inside, keywords = with_arrays_as_leaves((args, kwargs))
            return _automatic(fn, mesh, inside, keywords, models)
        except (ValueError, TypeError, NotImplementedError) as error:
            if "mesh" not in str(error):  # an error of the function's own
                raise
            # What closes over arrays of the mesh in ways not seen cannot leave it.
            try:
                return fn(*args, **kwargs)
            except Exception:
                raise error from None

    return call


def as_traced(fn: Callable[..., Any], avals: Sequence[Any]) -> Callable[..., Any]:
    """A function of arrays, run on the mesh with explicit axes on which it was traced.

    Where the axes are automatic, its arguments are first laid out as those it was traced on,
    because the layouts in the traced program are defined on explicit axes alone.

    Args:
        fn: A function of arrays.
        avals: The types of its arguments when it was traced.
    """
    mesh = explicit_mesh_of(avals)
    if mesh is None:
        return fn

    def call(*arrays: Any) -> Any:
        if explicit_mesh(arrays) is not None:
            return fn(*arrays)
        specs = tuple(_spec(aval) for aval in avals)
        layout = tuple(PartitionSpec(*spec) for spec in specs)
        return jax.sharding.explicit_axes(fn, in_sharding=layout)(*arrays)

    return call


def in_parts(batch: PyTree, chunk: int) -> tuple[PyTree, PyTree]:
    """A batch cut into parts of `chunk` examples, and the examples left over.

    Where the examples are sharded over explicit axes of a mesh, so are those of every part if their
    number is divisible; otherwise they are replicated.

    Args:
        batch: Arrays with a leading axis of n examples.
        chunk: The number of examples in a part.

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


def _spec(x: Any) -> tuple[Any, ...]:
    """The mesh axes of every axis of an array, or of an array type, as a tuple."""
    aval = jax.typeof(x) if isinstance(x, jax.Array) else x
    spec = getattr(getattr(aval, "sharding", None), "spec", ())
    return (*spec, *[None] * (len(aval.shape) - len(spec)))


def _automatic(fn: Callable[..., Any], mesh: Any, args: Any, kwargs: Any, like: Any) -> Any:
    leaves, structure = jax.tree.flatten((args, kwargs))
    moving = [isinstance(x, jax.Array) for x in leaves]
    arrays = [x for m, x in zip(moving, leaves, strict=True) if m]
    found: list[Any] = []

    def run(*arrays: jax.Array) -> list[Any]:
        following = iter(arrays)
        whole = [next(following) if m else x for m, x in zip(moving, leaves, strict=True)]
        args, kwargs = jax.tree.unflatten(structure, whole)
        result = fn(*args, **kwargs)
        results, form = jax.tree.flatten(result)
        fixed = [None if isinstance(x, jax.Array) else (x,) for x in results]
        found[:] = [form, fixed, _layouts(result, *like)]
        return [x for x in results if isinstance(x, jax.Array)]

    axes: Any = jax.sharding.auto_axes
    replicated = NamedSharding(mesh, PartitionSpec())
    layout = replicated
    if like:
        # How many results there are, and of what shape, is known once it was traced.
        jax.eval_shape(axes(run, out_sharding=replicated), *arrays)
        layout = [NamedSharding(mesh, PartitionSpec(*axes)) for axes in found[2]]
    results = iter(axes(run, out_sharding=layout)(*arrays))
    form, fixed, _ = found
    return jax.tree.unflatten(form, [next(results) if x is None else x[0] for x in fixed])


def _layouts(result: PyTree, like: PyTree = None) -> list[tuple[Any, ...]]:
    """The mesh axes of every array of a result, as a list of tuples."""
    models, structure = jax.tree.flatten(like)
    found: list[tuple[Any, ...]] = []
    for part in jax.tree.leaves(result, is_leaf=lambda x: jax.tree.structure(x) == structure):
        leaves = jax.tree.leaves(part)
        same = len(leaves) == len(models) and all(map(_same_trailing_axes, leaves, models))
        for i, x in enumerate(leaves):
            if isinstance(x, jax.Array):
                axes = [*[None] * x.ndim, *(_spec(models[i]) if same else ())]
                found.append(tuple(axes[len(axes) - x.ndim :]))
    return found


def _same_trailing_axes(x: Any, y: Any) -> bool:
    if not (isinstance(x, jax.Array) and isinstance(y, jax.Array)):
        return True
    n = min(x.ndim, y.ndim)
    return x.shape[x.ndim - n :] == y.shape[y.ndim - n :]
