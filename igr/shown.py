"""How results are displayed: in a line or two of text, and as an HTML table.

A class takes both by `__repr__ = short` and `_repr_html_ = table`. This file does not import JAX:
the symbolic side of the library shows itself by it too.
"""

from __future__ import annotations

import dataclasses
import html
import math
import sys
from collections.abc import Mapping
from typing import Any

_FEW = 6  # numbers that are shown in full, and entries of a mapping
_LONGEST = 120  # characters of one field


def short(self: Any) -> str:
    """The class name and the fields: numbers to four digits, larger arrays by dtype and shape.

    >>> import numpy as np
    >>> from typing import NamedTuple
    >>> class Pair(NamedTuple):
    ...     value: float
    ...     vector: np.ndarray
    ...     __repr__ = short
    >>> Pair(1 / 3, np.zeros((2, 50)))
    Pair(value=0.3333, vector=float64[2, 50])
    """
    fields = ", ".join(f"{name}={described(value)}" for name, value in _fields(self))
    return f"{type(self).__name__}({fields})"


def table(self: Any) -> str:
    """The fields as an HTML table, for notebooks."""
    rows = "".join(
        f"<tr><th style='text-align: left'>{html.escape(name)}</th>"
        f"<td style='text-align: left'>{html.escape(described(value))}</td></tr>"
        for name, value in _fields(self)
    )
    head = html.escape(type(self).__name__)
    return f"<table><caption>{head}</caption><tbody>{rows}</tbody></table>"


def table_of(columns: Mapping[str, Any], caption: str, most: int = 20) -> str:
    """An HTML table of columns of equal length; of many rows only the first and last.

    >>> table_of({"step": [0, 10], "loss": [1.0, 0.25]}, "run").count("<tr>")
    3
    """
    length = min((len(column) for column in columns.values()), default=0)
    rows = list(range(length))
    if length > most:
        rows = [*rows[: most // 2], *rows[length - most // 2 :]]
    head = "".join(f"<th>{html.escape(str(name))}</th>" for name in columns)
    lines = []
    for before, row in zip([-1, *rows], rows, strict=False):
        if row > before + 1:
            lines.append(f"<tr><td colspan='{len(columns)}'>…</td></tr>")
        cells = "".join(f"<td>{html.escape(described(c[row]))}</td>" for c in columns.values())
        lines.append(f"<tr>{cells}</tr>")
    return (
        f"<table><caption>{html.escape(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


def described(value: Any) -> str:
    """A text of at most 120 characters for any value.

    >>> import numpy as np
    >>> described(np.array([1.0, 2.5])), described({"w": np.ones((3, 4)), "b": np.ones(3)})
    ('[1, 2.5]', 'pytree of 2 arrays, 15 numbers')
    >>> described({0: np.zeros(9), 1: np.zeros(9)})
    '{0: float64[9], 1: float64[9]}'
    """
    return cut(_described(value))


def cut(text: str, longest: int = _LONGEST) -> str:
    """The text, shortened to `longest` characters with an ellipsis.

    >>> cut("a long word", 6)
    'a lon…'
    """
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _described(value: Any) -> str:
    if isinstance(value, bool | str | int) or value is None:
        return repr(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return _array(value)
    if getattr(type(value), "__repr__", None) is short:
        return short(value)
    if isinstance(value, Mapping):
        if not value:
            return "{}"
        by_order = all(isinstance(key, int) for key in value)
        if len(value) <= _FEW and (by_order or not _arrays(value)):
            return "{" + ", ".join(f"{k!r}: {described(v)}" for k, v in value.items()) + "}"
    arrays = _arrays(value)
    if arrays:
        if len(arrays) == 1:
            return f"pytree of {_shape(arrays[0])}"
        numbers = sum(math.prod(array.shape) for array in arrays)
        return f"pytree of {len(arrays)} arrays, {numbers:,} numbers"
    if callable(value) and hasattr(value, "__name__"):
        return f"<function {value.__name__}>"
    return " ".join(repr(value).split())


def _array(value: Any) -> str:
    """The text of an array: its numbers if they are few and known, otherwise its shape."""
    jax = sys.modules.get("jax")
    known = jax is None or not isinstance(value, jax.core.Tracer | jax.ShapeDtypeStruct)
    numeric = getattr(value.dtype, "kind", "") in tuple("biufc") or str(value.dtype) == "bfloat16"
    small = value.ndim == 0 or (value.ndim == 1 and value.shape[0] <= _FEW)
    if not (known and numeric and small):
        return _shape(value)
    if not getattr(value, "is_fully_addressable", True):
        return _shape(value)
    numbers = value.tolist()
    if value.ndim == 0:
        return _number(numbers)
    return "[" + ", ".join(map(_number, numbers)) + "]"


def _number(value: Any) -> str:
    return repr(value) if isinstance(value, bool | int) else f"{value:.4g}"


def _shape(value: Any) -> str:
    return f"{value.dtype}[{', '.join(map(str, value.shape))}]"


def _arrays(value: Any) -> list[Any]:
    """The arrays in a pytree, as a list."""
    jax = sys.modules.get("jax")
    leaves = [value] if jax is None else jax.tree.leaves(value)
    return [leaf for leaf in leaves if hasattr(leaf, "shape") and hasattr(leaf, "dtype")]


def _fields(value: Any) -> list[tuple[str, Any]]:
    """The (name, value) pairs of the fields of a named tuple or a dataclass."""
    if hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=True))
    return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
