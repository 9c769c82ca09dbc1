"""The results of a study on disk: one folder a cell, there in whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

_ARRAYS, _RECORD = "arrays.npz", "record.json"
_PART = ".part"


@dataclass(frozen=True)
class CellResult:
    """What a cell gave.

    Attributes:
        values: By name, what the function of the study returned: arrays, and the numbers, texts
            and lists that JSON can hold.
        record: Where it comes from: the configuration, the code's version, the versions of the
            libraries, the seconds it took.
    """

    values: Mapping[str, Any]
    record: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        if name not in self.values:
            raise KeyError(f"{name!r}; this cell has {', '.join(sorted(self.values))}")
        return self.values[name]


def write(folder: Path, name: str, result: CellResult) -> None:
    """Write a cell's result as `folder/name/`, so that no reader ever sees a part of it.

    Both files are written in a folder of another name, which is then renamed: a process killed at
    any time leaves the result or a folder ending in `.part`, which `sweep_up` removes.

    Args:
        folder: The study's folder; it exists.
        name: The cell's name.
        result: Its values are split into arrays (`arrays.npz`) and the rest (`record.json`).

    Raises:
        TypeError: If a value is neither an array of numbers nor of JSON.
    """
    arrays = {k: np.asarray(v) for k, v in result.values.items() if hasattr(v, "__array__")}
    for key, array in arrays.items():
        if array.dtype.hasobject:
            raise TypeError(f"{key} is an array of objects, which would have to be pickled")
    plain = {k: v for k, v in result.values.items() if k not in arrays}
    part = folder / f"{name}.{os.getpid()}{_PART}"
    part.mkdir()
    try:
        with open(part / _ARRAYS, "wb") as file:
            np.savez(file, allow_pickle=False, **_no_clash(arrays))
            _to_disk(file)
        with open(part / _RECORD, "w", encoding="utf-8") as file:
            json.dump(dict(result.record) | {"values": plain}, file, indent=1)
            _to_disk(file)
        os.replace(part, folder / name)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def read(folder: Path, name: str) -> CellResult | None:
    """The result of a cell, or None where there is none that can be read."""
    try:
        record = json.loads((folder / name / _RECORD).read_text(encoding="utf-8"))
        with np.load(folder / name / _ARRAYS, allow_pickle=False) as file:
            values = record.pop("values") | {key[1:]: file[key] for key in file.files}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{folder / name} is not a result as it was written ({error}); remove it and it will "
            "be computed again"
        ) from error
    return CellResult(values, record)


def there(folder: Path, name: str) -> bool:
    """Whether the result of a cell is on disk."""
    return (folder / name / _RECORD).exists()


def sweep_up(folder: Path) -> None:
    """Remove what a killed run was writing; the caller holds the folder's lock."""
    for part in folder.glob(f"*{_PART}"):
        shutil.rmtree(part, ignore_errors=True)


def _no_clash(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Array names behind an underscore: savez has parameters called `file` and `allow_pickle`."""
    return {f"_{name}": array for name, array in arrays.items()}


def _to_disk(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
