"""Keeping what was drawn: claims, numbers, the studies' results, and where they come from."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from analysis.scale import Conditions
from analysis.studies import STUDIES, study
from analysis.sweep import keep, present
from paper_figures.produce import Outcome

_LARGEST = 60_000  # bytes of drawn numbers; more of them are in the studies' results


def keep_all(outcomes: Sequence[Outcome], folder: Path, conditions: Conditions) -> None:
    """Write what is small and lasts below `folder/scale`.

    Claims as `paper/number.claims.csv` and drawn numbers as `paper/number.csv`, where they are
    small; the results of every study that is there in whole as `studies/name.npz` and `.json`, from
    which all pictures can be drawn again; `provenance.json`.

    Args:
        outcomes: What was drawn.
        folder: The folder of all that is kept.
        conditions: Under which it was drawn.
    """
    here = folder / conditions.scale
    for outcome in outcomes:
        for path in outcome.files:
            small = path.suffix == ".csv" and path.stat().st_size <= _LARGEST
            if small or path.name.endswith(".claims.csv"):
                to = here / Path(outcome.figure.name).parent / path.name
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, to)
    seconds: dict[str, float] = {}
    for name in () if conditions.committed else STUDIES:
        swept = present(study(name, conditions.scale), conditions.results)
        if swept is not None:
            keep(swept, here / "studies")
            seconds[name] = sum(float(r.record.get("seconds", 0)) for r in swept.results.values())
    path = here / "provenance.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    record = {
        "commit": _commit(),
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "seconds by study": before.get("seconds by study", {})
        | {name: round(value) for name, value in seconds.items()},
    }
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _commit() -> str:
    """The commit that is checked out, or "unknown" outside a repository."""
    command = ["git", "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True,
                              cwd=Path(__file__).parent)  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
