"""Functions as pytrees of the arrays they close over, so that these can move with the arguments.

An array on a mesh with explicit axes cannot be used where the axes are automatic, unless it is
handed over. What a Python function reads from around it stands in its closure, its defaults and
the globals that its code names; with others in their place it is the same function. What a bound
method or an object that is called reads stands in the attributes of the object, of which a copy is
made. A function that was compiled is taken as the one it was made of: it is compiled with the rest.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterator
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, cast

import jax

from igr.meshes.explicit_axes import explicit_mesh

_COMPILED = type(jax.jit(lambda: None))
_NEVER = ("jax", "jaxlib", "numpy", "igr")  # whose functions close over no array of a user's


def with_arrays_as_leaves(tree: Any) -> Any:
    """The pytree with functions that close over arrays on explicit axes as pytrees of these.

    Args:
        tree: Any pytree. Its functions (compiled ones and those with a custom derivative included),
            bound methods, `functools.partial`s, and objects with attributes are opened.
    """
    return _all_opened(tree, {})


@jax.tree_util.register_pytree_node_class
class _Opened:
    """A function as a pytree of what it reads: cells, defaults, keyword defaults and globals."""

    def __init__(self, fn: FunctionType, reads: Any):
        self.fn, self.reads = fn, reads

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        cells, defaults, keyword_defaults, names = self.reads
        fn = FunctionType(
            self.fn.__code__,
            {**self.fn.__globals__, **names},
            self.fn.__name__,
            None if defaults is None else tuple(defaults),
            tuple(map(CellType, cells)),
        )
        fn.__kwdefaults__ = keyword_defaults
        return fn(*args, **kwargs)

    def tree_flatten(self) -> tuple[tuple[Any], FunctionType]:
        return (self.reads,), self.fn

    @classmethod
    def tree_unflatten(cls, fn: FunctionType, children: tuple[Any]) -> _Opened:
        return cls(fn, *children)


@jax.tree_util.register_pytree_node_class
class _OpenedPartial:
    """A `functools.partial` as a pytree of its function and arguments."""

    def __init__(self, fn: Any, args: Any, keywords: Any):
        self.parts = fn, args, keywords

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        fn, first, keywords = self.parts
        return fn(*first, *args, **{**keywords, **kwargs})

    def tree_flatten(self) -> tuple[tuple[Any, ...], None]:
        return self.parts, None

    @classmethod
    def tree_unflatten(cls, _: None, parts: tuple[Any, ...]) -> _OpenedPartial:
        return cls(*parts)


@jax.tree_util.register_pytree_node_class
class _OpenedMethod:
    """A bound method as a pytree of its function and its object."""

    def __init__(self, fn: Any, of: Any):
        self.parts = fn, of

    def tree_flatten(self) -> tuple[tuple[Any, ...], None]:
        return self.parts, None

    @classmethod
    def tree_unflatten(cls, _: None, parts: tuple[Any, ...]) -> Any:
        return MethodType(*parts)


@jax.tree_util.register_pytree_node_class
class _OpenedObject:
    """An object as a pytree of its attributes; unflattening makes a copy of the object."""

    def __init__(self, of: Any, attributes: dict[str, Any]):
        self.of, self.attributes = of, attributes

    def tree_flatten(self) -> tuple[tuple[Any], Any]:
        return (self.attributes,), _Same(self.of)

    @classmethod
    def tree_unflatten(cls, same: _Same, children: tuple[Any]) -> Any:
        made = object.__new__(type(same.of)) if _is_plain(same.of) else copy.copy(same.of)
        vars(made).update(children[0])
        return made


class _Same:
    """A wrapper of an object that is equal only to a wrapper of the same object."""

    def __init__(self, of: Any):
        self.of = of

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.of is other.of

    def __hash__(self) -> int:
        return id(self.of)


def _opened(leaf: Any, seen: dict[int, Any]) -> Any:
    """The leaf as a pytree if it reads an array on explicit axes, otherwise the leaf itself."""
    if id(leaf) in seen:
        return seen[id(leaf)]
    parts = _parts(leaf)
    if parts is None:
        return leaf
    seen[id(leaf)] = leaf  # one that reads itself stays as it is there
    make, reads = parts
    found = make(*(_all_opened(part, seen) for part in reads))
    if explicit_mesh(found) is not None:
        seen[id(leaf)] = found
    return seen[id(leaf)]


def _parts(leaf: Any) -> tuple[Callable[..., Any], tuple[Any, ...]] | None:
    """The function that rebuilds a leaf, and the parts it is rebuilt from; or None."""
    if isinstance(leaf, functools.partial):
        return _OpenedPartial, (leaf.func, leaf.args, leaf.keywords)
    if inspect.ismethod(leaf):
        return _OpenedMethod, (leaf.__func__, leaf.__self__)
    if isinstance(leaf, FunctionType):
        return _parts_of_function(leaf)
    if isinstance(leaf, _COMPILED):
        return lambda fn: fn, (cast("Any", leaf).__wrapped__,)
    if isinstance(leaf, type | ModuleType | jax.Array) or not hasattr(leaf, "__dict__"):
        return None
    ruled = isinstance(leaf, jax.custom_jvp | jax.custom_vjp)
    if _is_of_a_library(type(leaf)) and not ruled:
        return None
    return functools.partial(_OpenedObject, leaf), (dict(vars(leaf)),)


def _is_plain(of: Any) -> bool:
    return type(of).__new__ is object.__new__ or isinstance(of, jax.custom_jvp | jax.custom_vjp)


def _parts_of_function(fn: FunctionType) -> tuple[Callable[..., Any], tuple[Any, ...]] | None:
    cells = [_contents(cell) for cell in fn.__closure__ or ()]
    if any(c is CellType for c in cells):  # a name that is not yet bound
        return None
    around = fn.__globals__
    # What a library puts around a function of the user's, as `jax.checkpoint`, closes over that.
    read = () if _is_of_a_library(fn) else _names(fn.__code__)
    names = {n: around[n] for n in read if n in around}
    names = {  # of functions those of the same module alone: not all that a library is made of
        n: x for n, x in names.items() if not isinstance(x, FunctionType) or x.__globals__ is around
    }
    reads = cells, fn.__defaults__, fn.__kwdefaults__, names
    return (lambda *reads: _Opened(fn, list(reads))), reads


def _is_of_a_library(what: Any) -> bool:
    return (what.__module__ or "").split(".")[0] in _NEVER


def _all_opened(tree: Any, seen: dict[int, Any]) -> Any:
    try:
        return jax.tree.map(lambda leaf: _opened(leaf, seen), tree)
    except (TypeError, ValueError):  # no pytree, as a dictionary whose keys have no order
        return tree


def _contents(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return CellType


def _names(code: CodeType) -> Iterator[str]:
    """The names of globals and attributes in a function's code, and in that of functions inside."""
    yield from code.co_names
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _names(const)
