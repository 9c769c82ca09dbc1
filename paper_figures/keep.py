"""Keeping what was drawn: claims, numbers, the studies' results, and where they come from."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.scale import Conditions
from analysis.studies import STUDIES, study
from analysis.sweep import keep, present
from paper_figures.draw import Outcome
from paper_figures.thumbnail import thumbnail

_LARGEST = 60_000  # bytes of drawn numbers; more of them are compressed


def keep_all(outcomes: Sequence[Outcome], folder: Path, conditions: Conditions) -> None:
    """Write what is small and lasts below `folder/scale`.

    Claims as `paper/number.claims.csv`; drawn numbers as `paper/number.csv`, or `.csv.gz` to five
    digits where they are many; the picture as a thumbnail, `paper/number.png`; the results of every
    study that is there in whole as `studies/name.npz` and `.json`, from which all pictures can be
    drawn again; `provenance.json`.

    Args:
        outcomes: What was drawn.
        folder: The folder of all that is kept.
        conditions: Under which it was drawn.
    """
    here = folder / conditions.scale
    for outcome in outcomes:
        for path in outcome.files:
            _keep_file(path, here / Path(outcome.figure.name).parent)
    for name in () if conditions.committed else STUDIES:
        swept = present(study(name, conditions.scale), conditions.results)
        if swept is not None:
            keep(swept, here / "studies")
    write_provenance(here)


def write_provenance(here: Path) -> None:
    """Write `provenance.json`: of every study kept what computed it, and how long it took.

    It says nothing that is not in the records of the study's cells; a commit, a machine, CPU
    seconds and the most memory are in those written since they are recorded.

    Args:
        here: The folder of a scale.
    """
    found = {}
    for path in sorted((here / "studies").glob("*.json")):
        records = list(json.loads(path.read_text(encoding="utf-8"))["cells"].values())
        about = {
            name: sorted({str(record.get(name, "not recorded")) for record in records})
            for name in ("commit", "machine", "device", "python")
        }
        versions = [f"{k} {v}" for r in records for k, v in r.get("versions", {}).items()]
        about["versions"] = sorted(set(versions))
        found[path.stem] = {
            "seconds": round(sum(float(record.get("seconds", 0)) for record in records), 1),
            "cpu seconds": round(sum(float(r.get("cpu_seconds", 0)) for r in records), 1) or None,
            "peak memory in GB": _most_memory(records),
        } | {name: values[0] if len(values) == 1 else values for name, values in about.items()}
    text = json.dumps({"studies": found}, indent=1)
    (here / "provenance.json").write_text(text + "\n", encoding="utf-8")


def _most_memory(records: Sequence[Mapping[str, Any]]) -> float | None:
    """The most that a process had by the end of one of the cells, where they say."""
    known = [int(record["peak_bytes"]) for record in records if record.get("peak_bytes")]
    return round(max(known) / 1e9, 2) if known else None


def _keep_file(path: Path, folder: Path) -> None:
    """Keep one of a figure's files in the folder of its paper, as it is or made small."""
    folder.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        (folder / path.name).write_bytes(thumbnail(path))
    if path.suffix != ".csv":
        return
    packed = folder / f"{path.name}.gz"
    if path.name.endswith(".claims.csv") or path.stat().st_size <= _LARGEST:
        shutil.copyfile(path, folder / path.name)
        packed.unlink(missing_ok=True)
        return
    import pandas as pd

    text = pd.read_csv(path).to_csv(index=False, float_format="%.5g")
    packed.write_bytes(gzip.compress(text.encode(), mtime=0))  # no time: the same bytes again
    (folder / path.name).unlink(missing_ok=True)
