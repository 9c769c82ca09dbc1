"""Saves a comparison as one file: its arrays as numpy's npz, its structure as JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

_FORMAT, _VERSION = "igr.Comparison", 1
_HEADER = "structure"
_LEFT_OUT = {"discrete": ("state",)}


def write(cmp: Any, path: str | os.PathLike) -> None:
    """Writes the fields of a comparison to a file, completely or not at all."""
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path must lie in a folder that exists; there is no {path.parent}")
    if path.is_dir():
        raise IsADirectoryError(f"path must be a file, new or old; {path} is a folder")
    arrays: dict[str, np.ndarray] = {}
    fields = {}
    for entry in dataclasses.fields(cmp):
        value = getattr(cmp, entry.name)
        if entry.name in _LEFT_OUT:
            value = value._replace(**dict.fromkeys(_LEFT_OUT[entry.name]))
        fields[entry.name] = _encoded(value, arrays)
    header = json.dumps({"format": _FORMAT, "version": _VERSION, "fields": fields})
    arrays[_HEADER] = np.frombuffer(header.encode(), np.uint8)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with new.open("wb") as file:
            np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def read(path: str | os.PathLike) -> dict[str, Any]:
    """The fields of a comparison from a file that `write` wrote, by name.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the file is something else, or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path must be a file that Comparison.save wrote; {path} is none")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not a file that Comparison.save wrote: no npz file, or cut")
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(arrays.pop(_HEADER).tobytes())
        if header["format"] != _FORMAT:
            raise ValueError(f"its format is {header['format']!r}")
        if header["version"] != _VERSION:
            raise ValueError(f"its version is {header['version']}, this library reads {_VERSION}")
        return {name: _decoded(x, arrays) for name, x in header["fields"].items()}
    except (
        ValueError, KeyError, IndexError, TypeError, AttributeError, OSError, EOFError,
        zipfile.BadZipFile,
    ) as error:  # fmt: skip
        raise ValueError(f"{path} is not a file that Comparison.save wrote: {error}") from error


def _encoded(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """A value as JSON, with its arrays moved to `arrays` and containers tagged by their kind."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {"dict": [[_key(k), _encoded(x, arrays)] for k, x in value.items()]}
    if type(value) in (list, tuple):
        return {type(value).__name__: [_encoded(x, arrays) for x in value]}
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        array = np.asarray(value)
        name, dtype = f"array{len(arrays)}", array.dtype.name
        # Numpy knows no bfloat16 and would pickle it, or lose its name.
        arrays[name] = array.view(np.uint16) if dtype == "bfloat16" else array
        return {"array": name, "dtype": dtype}
    children = jax.tree_util.tree_flatten_with_path(value, is_leaf=lambda x: x is not value)[0]
    if len(children) == 1 and not children[0][0]:
        return None  # a leaf that is no data, such as a function
    return {"dict": [[_name(path[0]), _encoded(x, arrays)] for path, x in children]}


def _decoded(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if not isinstance(value, dict):
        return value
    if "array" in value:
        array = arrays[value["array"]]
        return array.view(jax.numpy.bfloat16) if value["dtype"] == "bfloat16" else array
    if "dict" in value:
        return {k: _decoded(x, arrays) for k, x in value["dict"]}
    ((kind, items),) = value.items()
    return {"list": list, "tuple": tuple}[kind](_decoded(x, arrays) for x in items)


def _key(key: Any) -> Any:
    return key if isinstance(key, str | int) else str(key)


def _name(entry: Any) -> Any:
    """The name of an entry of a container, from its key in a pytree path."""
    for attribute in ("name", "key", "idx"):
        if hasattr(entry, attribute):
            return _key(getattr(entry, attribute))
    return str(entry)
