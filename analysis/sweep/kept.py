"""Results that are kept for good: small copies, found by their configuration alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from analysis.sweep.identity import canonical, cell_name
from analysis.sweep.results import CellResult, read
from analysis.sweep.run import Study, Sweep


def keep(swept: Sweep, folder: Path, largest: int = 400_000) -> int:
    """Write a study's results to `folder/study.name`, compressed, a folder a cell.

    Their names are made of the configuration alone: whatever becomes of the code, these are the
    numbers that were found, and their records say with which code and versions. Arrays of float64
    are rounded to float32, for they are for pictures.

    Args:
        swept: The results.
        folder: Where the results of all studies are kept.
        largest: Bytes; an array above is left out.

    Returns:
        The bytes written.
    """
    size = 0
    for cell, result in swept.results.items():
        here = folder / swept.study.name / cell_name(cell, "")
        here.mkdir(parents=True, exist_ok=True)
        arrays = {k: np.asarray(v) for k, v in result.values.items() if hasattr(v, "__array__")}
        plain = {k: v for k, v in result.values.items() if k not in arrays}
        small = {f"_{k}": _rounded(v) for k, v in arrays.items() if v.nbytes <= largest}
        np.savez_compressed(here / "arrays.npz", **small)
        record = dict(result.record) | {"config": canonical(cell), "values": plain}
        text = json.dumps(record, indent=1) + "\n"
        (here / "record.json").write_text(text, encoding="utf-8")
        size += (here / "arrays.npz").stat().st_size + len(text)
    return size


def committed(study: Study, folder: Path) -> Sweep:
    """The kept results of a study.

    Raises:
        FileNotFoundError: If those of a cell are not there.
    """
    here = folder / study.name
    found: dict[object, CellResult] = {}
    for cell in study.cells:
        result = read(here, cell_name(cell, ""))
        if result is None:
            raise FileNotFoundError(
                f"{here} has no results of {cell}; leave out --from and they are computed"
            )
        found[cell] = result
    return Sweep(study, found)


def _rounded(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype == np.float64 else array
