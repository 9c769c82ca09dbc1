"""`igr plot`: draws what monitors have written."""

from __future__ import annotations

import argparse
import math
import os
import sys
from pathlib import Path

from igr.checks import Number
from igr.cli.decoded import decoded
from igr.cli.refusal import BadInput

_ENDINGS = (".png", ".pdf", ".svg")


def add_plot(commands: argparse._SubParsersAction) -> None:
    """Adds the command `plot` and its options to the parser."""
    plot = commands.add_parser(
        "plot",
        help="draw one column of the CSV files that monitors have written",
        description="Draws one column of a monitor's CSV files against the step, a line a file.",
        allow_abbrev=False,
    )
    plot.add_argument("runs", nargs="+", metavar="RUN.csv", help="what Monitor(csv=...) wrote")
    plot.add_argument(
        "--column",
        metavar="NAME",
        help="what to draw; h_sharpness if there, else the first after the step",
    )
    plot.add_argument(
        "--learning-rate",
        metavar="H",
        help="of the runs: sharpness and batch_sharpness get their limit, 2/H",
    )
    plot.add_argument(
        "--limit",
        metavar="Y",
        help="a line to hold the runs against; 2 for h_sharpness if not given",
    )
    plot.add_argument("--log", action="store_true", help="a logarithmic vertical axis")
    plot.add_argument(
        "--out",
        metavar="FILE",
        help="a .png, .pdf or .svg file; the first run's name with .png if not given",
    )
    plot.set_defaults(command=plotted)


def plotted(options: argparse.Namespace) -> str:
    """Draws and writes the picture of `igr plot`; returns the text to print.

    Raises:
      BadInput: if a file is missing or not a monitor's, no run has the column, or an option is
        invalid.
    """
    rate = _number("--learning-rate", options.learning_rate, positive=True)
    limit = _number("--limit", options.limit)
    out = Path(options.runs[0]).with_suffix(".png") if options.out is None else Path(options.out)
    if out.suffix not in _ENDINGS:
        raise BadInput(f"--out must end in {', '.join(_ENDINGS)}; got {str(out)!r}.")
    if not out.parent.is_dir():
        raise BadInput(f"--out: there is no folder {str(out.parent)!r}")
    if "matplotlib" not in sys.modules:  # which does not load with a backend that it lacks
        os.environ["MPLBACKEND"] = "agg"
    try:
        import matplotlib
    except ImportError:
        raise BadInput("plot wants matplotlib: pip install 'igr[figures]'") from None
    matplotlib.use("agg")
    from matplotlib.figure import Figure

    from igr.plots import monitor, read_record, style

    try:
        names = decoded(_names(options.runs))
        records = {name: read_record(run) for name, run in zip(names, options.runs, strict=True)}
        column = options.column or _usual(next(iter(records.values())))
        if limit is None:
            limit = _limit(column, rate)
        with style():
            picture = Figure(figsize=(6.4, 4.0), layout="constrained")
            monitor(records, column, limit=limit, log=options.log, ax=picture.subplots())
            picture.savefig(out, dpi=150)
    except (ValueError, OSError) as error:
        raise BadInput(str(error)) from error
    last = (f"{name} {record[column][-1]:.4g}" for name, record in records.items())
    return _encodable(f"{out}: {column}, at the last step {', '.join(last)}")


def _encodable(text: str) -> str:
    """The text, with letters that the terminal cannot show as escapes."""

    def shown(sign: str) -> str:
        try:
            sign.encode(sys.stdout.encoding or "ascii", sys.stdout.errors or "strict")
        except UnicodeEncodeError:
            return sign.encode("ascii", "backslashreplace").decode()
        return sign

    return "".join(map(shown, text))


def _usual(record: dict) -> str:
    others = [name for name in record if name != "step"]
    if not others:
        raise BadInput("the run has no column but the step")
    return "h_sharpness" if "h_sharpness" in others else others[0]


def _limit(column: str, rate: Number | None) -> float | None:
    """The stability limit of gradient descent for a column, or None if it has none."""
    if column in ("h_sharpness", "h_batch_sharpness"):
        return 2.0
    if column in ("sharpness", "batch_sharpness") and rate is not None:
        return 2.0 / rate
    return None


def _names(runs: list[str]) -> list[str]:
    """Names that tell the runs apart: the files' stems, or relative paths where stems coincide."""
    if len(set(runs)) < len(runs):
        twice = next(run for run in runs if runs.count(run) > 1)
        raise BadInput(f"a run must be named once; got {twice!r} twice.")
    stems = [Path(run).stem for run in runs]
    if len(set(stems)) == len(stems):
        return stems
    common = os.path.commonpath([os.path.abspath(run) for run in runs])
    return [os.path.relpath(os.path.abspath(run), common) for run in runs]


def _number(option: str, text: str | None, positive: bool = False) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or (positive and value <= 0):
        raise BadInput(f"{option} must be a {'positive ' if positive else ''}number; got {text!r}.")
    return value
