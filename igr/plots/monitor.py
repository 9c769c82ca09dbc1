"""A monitor's records of one run or several."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from igr.checks import Number
from igr.plots.style import axes, look

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def monitor(
    records: Any,
    column: str | None = None,
    *,
    limit: Number | None = None,
    log: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Draws one column of a monitor's record against the step, a line a run; returns the Axes.

    Args:
      records: a record, or a mapping from the names of runs to records. A record is a mapping from
        columns to arrays, with `step` among them, the path of a monitor's CSV file, or a monitor.
      column: what to draw; `h_sharpness` if there, else the first.
      limit: a horizontal line, such as 2 for the limit of stability of `h_sharpness`, or 2/h for
        that of `sharpness`; what lies above is shaded.
      log: whether the vertical axis is logarithmic.
      ax: the Axes to draw on; new ones if None.

    Raises:
      ValueError: if a record lacks the column or has no step; the message names those it has.
      FileNotFoundError: if a path is not there.

    >>> ax = monitor({"step": [0, 10], "h_sharpness": [1.5, 2.1]}, limit=2.0)
    >>> print(ax.lines[0].get_ydata(), ax.get_ylabel())
    [1.5 2.1] h_sharpness
    """
    runs = {name: _record(record) for name, record in _named(records).items()}
    if not runs:
        raise ValueError("records must hold at least one record")
    first = next(iter(runs.values()))
    if column is None:
        others = [name for name in first if name != "step"]
        column = "h_sharpness" if "h_sharpness" in others else next(iter(others), "")
    ax = axes(ax)
    highest = -np.inf
    for number, (name, record) in enumerate(runs.items()):
        if column not in record:
            there = ", ".join(c for c in record if c != "step")
            raise ValueError(f"column must be among {there}; got {column!r}")
        label = name or "_nolegend_"
        ax.plot(record["step"], record[column], label=label, **look(number))
        finite = record[column][np.isfinite(record[column])]
        highest = max([highest, *finite])
    if limit is not None:
        ax.axhline(limit, color="black", linewidth=0.8, linestyle="--", label=f"limit {limit:.4g}")
        if highest > limit:
            ax.axhspan(limit, highest, color="#D55E00", alpha=0.1, linewidth=0)
    if log:
        ax.set_yscale("log")
    ax.set_xlabel("step")
    ax.set_ylabel(column)
    if ax.get_legend_handles_labels()[1]:
        ax.legend()
    return ax


def read_record(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The columns of a monitor's CSV file, a dictionary of arrays by name.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if its header does not begin with `step`, it has no row, or an entry is no number.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.reader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a monitor's CSV file: {error}") from error
    if not lines or not lines[0] or lines[0][0] != "step":
        raise ValueError(f"{path} is not a monitor's CSV file: its header does not begin with step")
    header, rows = lines[0], lines[1:]
    if not rows:
        raise ValueError(f"{path} has no rows")
    try:
        values = [[_number(field) for field in row] for row in rows]
        table = np.array(values, float)
    except ValueError as error:
        raise ValueError(f"{path} is not a monitor's CSV file: {error}") from error
    if table.shape != (len(rows), len(header)):
        raise ValueError(f"{path} is not a monitor's CSV file: its rows are of different lengths")
    return dict(zip(header, table.T, strict=True))


def _number(field: str) -> float:
    return float({"True": "1", "False": "0"}.get(field, field))


def _named(records: Any) -> dict[str, Any]:
    single = isinstance(records, str | os.PathLike) or hasattr(records, "record")
    if single or (isinstance(records, Mapping) and "step" in records):
        return {"": records}
    if not isinstance(records, Mapping):
        raise TypeError(
            "records must be a record (columns with step among them, a path, a monitor) or a "
            f"mapping from names to such; got {type(records).__name__}."
        )
    return dict(records)


def _record(record: Any) -> dict[str, np.ndarray]:
    if isinstance(record, str | os.PathLike):
        return read_record(record)
    if hasattr(record, "record"):
        record = record.record
    if "step" not in record:
        raise ValueError(f"a record needs the column step; it has {', '.join(map(str, record))}")
    return {name: np.asarray(values, float) for name, values in record.items()}
