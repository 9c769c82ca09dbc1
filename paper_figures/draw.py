"""Draw one figure and write what it gives; one that fails is noted, and raises nothing."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from analysis.scale import Conditions
from paper_figures.figure import Claim, Figure


@dataclass(frozen=True)
class Outcome:
    """What became of one figure: its claims and files, or the error that stopped it."""

    figure: Figure
    seconds: float
    claims: tuple[Claim, ...] = ()
    files: tuple[Path, ...] = ()
    error: str | None = None


def draw(figure: Figure, out: Path, conditions: Conditions) -> Outcome:
    """Draw a figure and write its files.

    A figure `paper/number` becomes `out/paper/number.png`, `.pdf`, `.csv` (the numbers drawn) and
    `.claims.csv`.

    Args:
        figure: What to draw; ready.
        out: The directory to write to.
        conditions: Under which the studies that it needs are computed.

    Returns:
        What became of it; an exception of its own is the outcome's `error`.
    """
    start = time.perf_counter()
    try:
        # Here and not above: matplotlib and pandas take a second that `--list` need not wait.
        from paper_figures.style import paper_style

        with paper_style():
            drawing = figure.drawing_function()(conditions)
            files = _write(figure.name, drawing, out)
    except Exception as error:
        text = "".join(traceback.format_exception(error))
        return Outcome(figure, time.perf_counter() - start, error=text)
    return Outcome(figure, time.perf_counter() - start, tuple(drawing.claims), files)


def _write(name, drawing, out: Path) -> tuple[Path, ...]:
    import pandas as pd

    claims = pd.DataFrame(
        [(c.claim, c.measured, c.paper, c.holds, "" if c.holds else c.otherwise)
         for c in drawing.claims],
        columns=["claim", "measured", "paper", "holds", "note"],
    )  # fmt: skip
    # Without a date and a version in it, the same numbers give the same bytes.
    save = drawing.picture.savefig
    writers: dict[str, Callable[[Path], object]] = {
        ".png": lambda p: save(p, format="png", metadata={"Software": None}),
        ".pdf": lambda p: save(p, format="pdf", metadata={"CreationDate": None, "Producer": None}),
        ".csv": lambda p: drawing.table.to_csv(p, index=False),
        ".claims.csv": lambda p: claims.to_csv(p, index=False),
    }
    return tuple(_write_atomically(out / f"{name}{end}", to) for end, to in writers.items())


def _write_atomically(path: Path, write: Callable[[Path], object]) -> Path:
    """Write beside `path`, then move into place: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path
