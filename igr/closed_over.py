"""A function as a pytree of the arrays that it closes over, so that they can move with arguments.

An array on a mesh with explicit axes cannot be used where the axes are automatic, unless it is
handed over. What a Python function reads from around it stands in its closure, its defaults and
the globals that its code names; with others in their place it is the same function.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from types import CellType, CodeType, FunctionType
from typing import Any

import jax

from igr.explicit_axes import explicit_mesh

_NEVER = ("jax", "jaxlib", "numpy", "igr")  # whose functions close over no array of a user's


def with_arrays_as_leaves(tree: Any) -> Any:
    """A pytree whose functions that close over arrays on explicit axes are pytrees of them.

    Args:
        tree: Any pytree; only plain functions, lambdas and `functools.partial`s of them are seen.
    """
    return _all_opened(tree, {})


@jax.tree_util.register_pytree_node_class
class _Opened:
    """A function, and what it reads: cells, defaults, keyword defaults and globals."""

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
    """A `functools.partial` of one."""

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


def _opened(leaf: Any, seen: dict[int, Any]) -> Any:
    """The leaf, or a function as a pytree where it reads an array on explicit axes."""
    if not isinstance(leaf, FunctionType | functools.partial):
        return leaf
    if id(leaf) in seen:
        return seen[id(leaf)]
    seen[id(leaf)] = leaf  # one that reads itself stays as it is there
    opened = functools.partial(_all_opened, seen=seen)
    if isinstance(leaf, functools.partial):
        found: Any = _OpenedPartial(*map(opened, (leaf.func, leaf.args, leaf.keywords)))
    elif leaf.__module__.split(".")[0] in _NEVER:
        return leaf
    else:
        cells = [_contents(cell) for cell in leaf.__closure__ or ()]
        if any(c is CellType for c in cells):  # a name that is not yet bound
            return leaf
        around = leaf.__globals__
        names = {n: around[n] for n in _names(leaf.__code__) if n in around}
        names = {  # of functions those of the same module alone: not all that a library is made of
            n: x
            for n, x in names.items()
            if not isinstance(x, FunctionType) or x.__globals__ is around
        }
        reads = [cells, leaf.__defaults__, leaf.__kwdefaults__, names]
        found = _Opened(leaf, [opened(part) for part in reads])
    if explicit_mesh(found) is not None:
        seen[id(leaf)] = found
    return seen[id(leaf)]


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
    """The globals and attributes that a function names, and those of the functions in it."""
    yield from code.co_names
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _names(const)
