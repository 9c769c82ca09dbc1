"""Where a monitor writes its rows: a CSV file, loggers, a live table."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypedDict

from rich.console import Console
from rich.live import Live
from rich.table import Table

from igr.checks import Number

Row = Mapping[str, Any]
Sink = Callable[[int, Row], Any]


class ReportOptions(TypedDict, total=False):
    """Where the rows of a `Monitor` go, beside its `record`; None is as if not given.

    Attributes:
        csv: A file to write the rows to. Each is on the disk when the call returns.
        resume: Whether to go on with a `csv` that exists; rows from the first step on that is
            measured are written anew. False if not given.
        to: Where else to hand the rows to: a function `(step, row)`, a TensorBoard writer (of
            torch, tensorboardX, flax or clu), a Weights & Biases run, or a list of such.
        table: Whether to show a live table in the terminal, or the rich console to show it on.
            False if not given.
    """

    csv: str | os.PathLike | None
    resume: bool | None
    to: Any
    table: bool | Console | None


class Reports:
    """All the targets to which a monitor writes its rows.

    Args:
        csv: The path of a CSV file, or None; as in `ReportOptions`, like the following.
        resume: Whether to continue a file that exists.
        to: A target as `sink` takes it, or a list of such.
        table: Whether to show a live table, or the console to show it on.

    Attributes:
        resumed: Whether a CSV file is continued.
    """

    def __init__(
        self,
        csv: str | os.PathLike | None = None,
        resume: bool = False,
        to: Any = (),
        table: bool | Console = False,
    ):
        self._sinks = [sink(t) for t in (to if isinstance(to, list | tuple) else [to])]
        self._table = LiveTable(None if table is True else table) if table else None
        self._csv = None if csv is None else CSVFile(csv, resume)
        self.resumed = resume and csv is not None

    def write(self, step: int, row: Row, title: str) -> None:
        """Writes a row to every target; `title` is that of the table."""
        if self._csv is not None:
            self._csv.write(step, row)
        for write in self._sinks:
            write(step, {name: float(value) for name, value in row.items()})
        if self._table is not None:
            self._table.show(step, row, title)

    def close(self) -> None:
        """Ends the live table; files need no closing."""
        if self._table is not None:
            self._table.close()


class CSVFile:
    """A CSV file with one line for each row, under a header of `step` and the columns.

    A line is written in one call, so that a run that is killed leaves whole lines. A run that is
    resumed at an earlier step than the file has reached drops the lines from that step on.
    """

    def __init__(self, path: str | os.PathLike, resume: bool = False):
        self.path = Path(path)
        self._ready = False
        if not self.path.parent.is_dir():
            raise FileNotFoundError(
                f"csv must lie in a folder that exists; there is no {self.path.parent}."
            )
        if self.path.is_dir():
            raise IsADirectoryError(f"csv must be a file; {self.path} is a folder.")
        if self.path.exists() and not resume:
            raise FileExistsError(
                f"csv {self.path} exists already: give resume=True to go on with it, or another "
                "name."
            )

    def write(self, step: int, row: Row) -> None:
        """Appends a row to the file."""
        if not self._ready:
            self._start(step, ["step", *row])
            self._ready = True
        line = _line([step, *row.values()]).encode()
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(file, line)
        finally:
            os.close(file)

    def _start(self, step: int, header: list[str]) -> None:
        """Writes the header, and keeps the rows before `step` of a file that exists."""
        text = self.path.read_text("utf-8") if self.path.exists() else ""
        whole = text[: text.rfind("\n") + 1]  # a line cut short is no row
        lines = list(csv.reader(io.StringIO(whole)))
        if lines and lines[0] != header:
            raise ValueError(
                f"csv {self.path} cannot be resumed: its columns are {', '.join(lines[0])}; "
                f"those of this monitor are {', '.join(header)}."
            )
        kept = [line for line in lines[1:] if int(line[0]) < step]
        text = "".join(map(_line, [header, *kept]))
        new = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        new.write_text(text, "utf-8")
        os.replace(new, self.path)


def _line(fields: list[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(map(str, fields))
    return text.getvalue()


def sink(target: Any) -> Sink:
    """The function `(step, row)` that writes a row to a logger of any known kind.

    Raises:
        TypeError: If the logger's kind is not known.
    """
    if callable(target):
        return target
    if hasattr(target, "write_scalars"):  # clu.metric_writers
        return lambda step, row: target.write_scalars(step, _floats(row))
    if hasattr(target, "add_scalar"):  # torch.utils.tensorboard, tensorboardX
        return _one_by_one(target.add_scalar)
    if hasattr(target, "scalar"):  # flax.metrics.tensorboard
        return _one_by_one(target.scalar)
    if hasattr(target, "log"):  # wandb, or a run of it
        return lambda step, row: target.log(_floats(row), step=step)
    raise TypeError(
        "to must be a function (step, row), a TensorBoard writer, a Weights & Biases run, or a "
        f"list of such; got {target!r}."
    )


def _one_by_one(write: Callable[[str, Number, int], Any]) -> Sink:
    return lambda step, row: [write(name, value, step) for name, value in _floats(row).items()]


def _floats(row: Row) -> dict[str, float]:
    return {name: float(value) for name, value in row.items()}


class LiveTable:
    """A table in the terminal, with each measure's latest, first, lowest and highest value."""

    def __init__(self, console: Console | None = None):
        self._live = Live(console=console, auto_refresh=False)
        self._first: dict[str, float] = {}
        self._range: dict[str, tuple[float, float]] = {}

    def show(self, step: int, row: Row, caption: str) -> None:
        """Redraws the table with a row."""
        table = Table(title=f"step {step}", caption=caption)
        table.add_column("measure")
        for heading in ("now", "first", "lowest", "highest"):
            table.add_column(heading, justify="right", min_width=10)
        for name, value in _floats(row).items():
            first = self._first.setdefault(name, value)
            low, high = self._range.get(name, (value, value))
            low, high = self._range[name] = min(low, value), max(high, value)
            table.add_row(name, *(f"{x:.4g}" for x in (value, first, low, high)))
        self._live.start()
        self._live.update(table, refresh=True)

    def close(self) -> None:
        """Stops redrawing and leaves the last table on the screen."""
        self._live.stop()
