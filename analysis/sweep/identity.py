"""What a cell's result is called: a hash of its configuration and of the code that computes it."""

from __future__ import annotations

import ast
import dataclasses
import enum
import hashlib
import importlib.util
import json
import math
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

_OURS = ("igr", "analysis")
# How cells are run and kept, and which studies there are, changes no number in them.
_NOT_THE_NUMBERS = re.compile(r"analysis\.(sweep\b.*|studies$)")


def cell_name(config: Any, version: str) -> str:
    """The name under which the result of a cell is kept.

    Args:
        config: A frozen dataclass of numbers, texts, enums, None, and tuples or further frozen
            dataclasses of these.
        version: What `code_version` says of the function that runs the cell.

    Returns:
        24 hexadecimal digits: equal for equal configurations and code, on every machine.

    Raises:
        TypeError: If `config` is no frozen dataclass, or a field holds something else.
        ValueError: If a field is NaN, which equals nothing, itself included.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Cell:
    ...     width: int
    ...     rate: float
    >>> cell_name(Cell(50, 0.1), "1") == cell_name(Cell(50, 0.1), "1")
    True
    >>> cell_name(Cell(50, 0.1), "1") == cell_name(Cell(50, 0.2), "1")
    False
    """
    text = json.dumps([canonical(config), version], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def canonical(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON: its class and its fields, in one form only."""
    is_instance = dataclasses.is_dataclass(config) and not isinstance(config, type)
    if not is_instance or not config.__dataclass_params__.frozen:  # pyright: ignore
        raise TypeError(f"a cell is a frozen dataclass, got {config!r}")
    fields = dataclasses.fields(config)
    return {"class": type(config).__qualname__} | {
        field.name: _plain(getattr(config, field.name), field.name) for field in fields
    }


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, enum.Enum):
        return f"{type(value).__qualname__}.{value.name}"
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if math.isnan(value):
            raise ValueError(f"{where} is NaN, which no cell can be known by")
        return {"float": value.hex()}  # 1 and 1.0 are different cells, 0.1 and 0.10 are not
    if isinstance(value, tuple):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if dataclasses.is_dataclass(value):
        return canonical(value)
    raise TypeError(
        f"{where} is {value!r}: a cell's fields are numbers, texts, enums, None, and tuples or "
        "frozen dataclasses of these"
    )


def code_version(function: Callable[..., Any]) -> str:
    """A hash of the code that a function may reach in this repository.

    It covers the module of the function and all modules of `igr` and `analysis` that it imports,
    directly or not (but neither `analysis.sweep` nor the list of studies), as syntax trees without
    docstrings: a comment or a sentence changed keeps results, a changed number does not. Functions
    called `study` are left out too: they list cells, which have names of their own. Other packages'
    versions are not in it; they are written beside each result.

    Args:
        function: A function of a module (or of a script).

    Returns:
        16 hexadecimal digits.

    >>> len(code_version(code_version))
    16
    """
    found: dict[str, str] = {}
    waiting = [(function.__module__, _source_of(function))]
    while waiting:
        name, path = waiting.pop()
        if name in found or path is None:
            continue
        tree, imported = _parsed(path)
        found[name] = tree
        waiting += [(other, _file_of(other)) for other in imported if other not in found]
    # A script is __main__ here and has another name elsewhere: only what it says counts.
    text = json.dumps([found.pop(function.__module__), sorted(found.items())])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _source_of(function: Callable[..., Any]) -> Path:
    module = sys.modules.get(function.__module__)
    path = getattr(module, "__file__", None)
    if path is None:
        raise TypeError(f"{function!r} is not in a file, so its version cannot be known")
    return Path(path)


@cache
def _file_of(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # `from analysis.data import digits`: digits may be a function
        return None
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin)


def _parsed(path: Path) -> tuple[str, tuple[str, ...]]:
    return _parse(path, path.stat().st_mtime_ns)


@cache
def _parse(path: Path, changed: int) -> tuple[str, tuple[str, ...]]:
    del changed  # only a key: a file that is edited is read again
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = tuple(dict.fromkeys(_imports(tree)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = node.body[ast.get_docstring(node, clean=False) is not None :]
    tree.body = [n for n in tree.body if not (isinstance(n, ast.FunctionDef) and n.name == "study")]
    return ast.dump(tree), imported


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            if parts[0] in _OURS:
                whole = (".".join(parts[: i + 1]) for i in range(len(parts)))
                yield from (part for part in whole if not _NOT_THE_NUMBERS.match(part))
