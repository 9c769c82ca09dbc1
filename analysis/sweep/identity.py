"""What a cell's result is called: a hash of its configuration and of the code that computes it."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from analysis.sweep.reached import reached

_OURS = ("igr", "analysis")


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
        raise TypeError(f"a cell must be a frozen dataclass; got {config!r}.")
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
    """A hash of the code that a function can reach in `igr` and `analysis`.

    Definitions are followed by name (`analysis.sweep.reached`): what a study does not use may
    change and its results are kept, and so they are when a comment, a docstring or an annotation
    changes. Other packages' versions are not in it; they are written beside each result.

    Args:
        function: A function of a module (or of a script).

    Returns:
        16 hexadecimal digits.

    Raises:
        TypeError: If the function is in no file.

    >>> len(code_version(canonical))
    16
    """
    module = sys.modules.get(function.__module__)
    path = getattr(module, "__file__", None)
    if path is None:
        raise TypeError(f"{function!r} is not in a file, so its version cannot be known")
    found = reached(function.__module__, Path(path), function.__name__, _OURS)
    # A script is __main__ here and has another name elsewhere: only what it says counts.
    named = [
        ("" if of == function.__module__ else of, name, text) for (of, name), text in found.items()
    ]
    return hashlib.sha256(json.dumps(sorted(named)).encode()).hexdigest()[:16]
