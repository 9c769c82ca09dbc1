"""Results that are kept for good: two small files a study, cells found by configuration alone."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from analysis.sweep import results
from analysis.sweep.identity import canonical, cell_name, code_version
from analysis.sweep.results import CellResult
from analysis.sweep.run import Study, Sweep

_EXACT = 40_000  # bytes up to which an array is kept as it is


def keep(swept: Sweep, folder: Path, largest: int = 400_000) -> int:
    """Write a study's results as `folder/study.name.npz` and `.json`, compressed.

    Cells are known there by their configuration alone: whatever becomes of the code, these are the
    numbers that were found, and their records say with which code and versions. Large arrays of
    float64 are rounded to float32, for they are for pictures, and those that would be left out to
    half precision.

    Args:
        swept: The results.
        folder: Where the results of all studies are kept.
        largest: Bytes; an array above is left out.

    Returns:
        The bytes written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    alike: dict[tuple[str, str], dict[str, np.ndarray]] = defaultdict(dict)
    records: dict[str, Any] = {}
    for cell, result in swept.results.items():
        name = cell_name(cell, "")
        plain = {}
        for key, value in result.values.items():
            if not hasattr(value, "__array__"):
                plain[key] = value
                continue
            array = _rounded(np.asarray(value), largest)
            if array.nbytes <= largest:
                alike[key, f"{array.dtype}{array.shape}"][name] = array
        records[name] = dict(result.record) | {"config": canonical(cell), "values": plain}
    data, about = (folder / f"{swept.study.name}{end}" for end in (".npz", ".json"))
    # Arrays of one shape go together: a file of many small ones is mostly their headers.
    stacked: dict[str, Any] = {
        f"{i}/{key}": np.stack([*a.values()]) for i, ((key, _), a) in enumerate(alike.items())
    }
    order = {f"{i}/{key}": list(a) for i, ((key, _), a) in enumerate(alike.items())}
    np.savez_compressed(data, **stacked)
    text = json.dumps({"cells": records, "arrays": order}, separators=(",", ":"), sort_keys=True)
    about.write_text(text + "\n", encoding="utf-8")
    return data.stat().st_size + about.stat().st_size


def committed(study: Study, folder: Path) -> Sweep:
    """The kept results of a study.

    Raises:
        FileNotFoundError: If those of a cell are not there.
    """
    data, about = (folder / f"{study.name}{end}" for end in (".npz", ".json"))
    if not (data.exists() and about.exists()):
        raise FileNotFoundError(f"{folder} has no results of {study.name}; without --from they are "
                                "computed")  # fmt: skip
    written = json.loads(about.read_text(encoding="utf-8"))
    records = written["cells"]
    values: dict[str, dict[str, Any]] = {name: {} for name in records}
    with np.load(data, allow_pickle=False) as file:
        for key, names in written["arrays"].items():
            for name, array in zip(names, file[key], strict=True):
                values[name][key.partition("/")[2]] = array
    found: dict[Any, CellResult] = {}
    for cell in study.cells:
        name = cell_name(cell, "")
        if name not in records:
            raise FileNotFoundError(
                f"{data} has no results of {cell}; without --from they are computed"
            )
        record = dict(records[name])
        found[cell] = CellResult(record.pop("values") | values[name], record)
    return Sweep(study, found)


def present(study: Study, folder: Path) -> Sweep | None:
    """What a study's sweep would give, where all of its cells are there; else None."""
    code = code_version(study.run)
    found = {cell: results.read(folder / study.name, cell_name(cell, code)) for cell in study.cells}
    kept = {cell: result for cell, result in found.items() if result is not None}
    return Sweep(study, kept) if len(kept) == len(found) else None


def _rounded(array: np.ndarray, largest: int) -> np.ndarray:
    """In float32, but for a small array and one with numbers that are too large for it.

    In float16 where it has more bytes than `largest`.
    """
    if array.dtype.kind == "f" and array.nbytes > largest:
        dtype = np.float16
    elif array.dtype == np.float64 and array.nbytes > _EXACT:
        dtype = np.float32
    else:
        return array
    with np.errstate(over="ignore"):
        small = array.astype(dtype)
    return small if np.array_equal(np.isfinite(small), np.isfinite(array)) else array
