"""One run on a GPU, the most valuable rows first: `python -m benchmarks gpu --minutes 8 --out DIR`.

Every row is written to DIR/gpu.json when it is there, and the run stops at its time with what it
has, in the middle of a row if need be; `--resume` goes on from there, on the same card. Without a
GPU, `--tiny` runs all of it at a size that a CPU does.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.worker import Failed, Skipped, TooLong, Worker, within
from benchmarks.measure import Row

LONGEST = 60.0  # seconds that a row may take, and a piece before the next is begun


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the pieces in their order until the time is up.

    Args:
      argv: the arguments; those of the process if not given.

    Returns:
      The exit status: 0, 1 if a piece failed, 2 for bad arguments.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks gpu", description="Measures igr on one GPU, within a time."
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="stop after so many (8)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for gpu.json")
    parser.add_argument("--tiny", action="store_true", help="a size that a CPU does too")
    parser.add_argument("--resume", action="store_true", help="leave out what gpu.json has whole")
    parser.add_argument("--only", action="append", metavar="PIECE", help="leave out all others")
    options = parser.parse_args(argv)
    if not options.minutes > 0:
        parser.error(f"--minutes must be more than 0; got {options.minutes}")
    if options.out.exists() and not options.out.is_dir():
        parser.error(f"--out must be a folder; got {options.out}")

    begun = time.monotonic()
    try:
        worker = Worker(options.tiny)  # JAX is started once the arguments are right
    except (Failed, TooLong) as error:
        print(f"nothing was measured: {error}", file=sys.stderr)
        return 1
    try:
        return _measured(parser, options, worker, begun)
    finally:
        worker.end()


def _measured(
    parser: argparse.ArgumentParser, options: argparse.Namespace, worker: Worker, begun: float
) -> int:
    known, about = worker.pieces(), worker.about
    for name in options.only or ():
        if name not in known:
            parser.error(f"--only must be one of {', '.join(known)}; got {name}")
    chosen = {n: piece for n, piece in known.items() if not options.only or n in options.only}
    file = options.out / "gpu.json"
    rows: list[dict[str, Any]] = []
    if options.resume:
        try:
            rows = whole_rows(file, about)
        except ValueError as error:
            parser.error(str(error))
        have = {row["piece"] for row in rows}
        chosen = {n: piece for n, piece in chosen.items() if n not in have}
    options.out.mkdir(parents=True, exist_ok=True)
    seconds = 60 * options.minutes - (time.monotonic() - begun)
    longest = seconds if options.tiny else LONGEST  # a CPU may be slow to compile
    report = measure(chosen, file, seconds, about, longest, rows=rows)
    for piece, why in report["skipped"].items():
        print(f"{piece} was left out: {why}", file=sys.stderr)
    for piece, why in report["failed"].items():
        print(f"{piece} did not run: {why}", file=sys.stderr)
    for piece, why in report["ended"].items():
        print(f"{piece} was cut short: {why}", file=sys.stderr)
    if report["left"]:
        print(f"not measured: {', '.join(report['left'])}; --resume goes on", file=sys.stderr)
    return 1 if report["failed"] else 0


def whole_rows(file: Path, about: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of pieces that an earlier run finished, without those of the card's limits.

    The limits are measured in every run: other rows are shares of them.

    Args:
      file: what that run wrote.
      about: what is said of the machine now.

    Raises:
      ValueError: if there is none, or it is of another machine, size or version.
    """
    if not file.is_file():
        raise ValueError(f"--resume needs {file}, which is not there")
    report = json.loads(file.read_text(encoding="utf-8"))
    other = {k: report.get(k) for k, value in about.items() if report.get(k) != value}
    if other:
        now = {k: about[k] for k in other}
        raise ValueError(f"--resume: {file} is of {other}, and this is {now}")
    unfinished = {*report["left"], *report["failed"], "limits"}
    return [row for row in report["rows"] if row["piece"] not in unfinished]


def measure(
    pieces: dict[str, Callable[[], Iterator[Row]]],
    file: Path,
    seconds: float,
    about: dict[str, Any],
    longest: float = LONGEST,
    clock: Callable[[], float] = time.monotonic,
    rows: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """Runs pieces one after another; the file holds all that is known at any time.

    Args:
      pieces: functions that yield rows, by name, in their order.
      file: where to write.
      seconds: how long it may take. A row that is measured when that is over is ended, and none
        is begun.
      about: what is said of the machine.
      longest: the seconds of a row, which is ended then; and a piece that has had as many is left
        for the next.
      clock: in seconds.
      rows: what an earlier run has measured.

    Returns:
      What was written last: the rows; the pieces that failed, were skipped, or were ended in a
      row, and why; and those that were cut short or not begun.
    """
    start = clock()
    report: dict[str, Any] = {
        **about, "rows": list(rows), "failed": {}, "skipped": {}, "ended": {}, "left": list(pieces)
    }  # fmt: skip
    write(report, file)
    for name, piece in pieces.items():
        begun = clock()
        if begun - start >= seconds:
            break
        found = piece()
        whole = False
        while clock() - start < seconds and clock() - begun < longest:
            before = clock()
            try:
                row = within(found, min(longest, seconds - (before - start)))
            except StopIteration:
                whole = True
                break
            except Skipped as why:
                report["skipped"][name] = str(why)
                whole = True
                break
            except TooLong as why:
                if before - start + longest <= seconds:  # else it is the time that is over
                    report["ended"][name] = str(why)
                break
            except Exception as error:  # such as out of memory: the others count
                kind = "" if isinstance(error, Failed) else f"{type(error).__name__}: "
                report["failed"][name] = f"{kind}{error}"[:500]
                whole = True
                break
            report["rows"].append(
                {
                    "piece": name,
                    "what": row.name,
                    "measured": row.measured,
                    "unit": row.unit,
                    "target": row.target,
                    "met": row.met,
                    "took": round(clock() - before, 2),
                }
            )
            write(report, file)
            print(f"{name}: {row.name}: {row.measured:.4g} {row.unit} {row.target}", flush=True)
        if whole:
            report["left"].remove(name)
        report["seconds"] = round(clock() - start, 1)
        write(report, file)
    return report


def write(report: dict[str, Any], file: Path) -> None:
    """Writes a report as a whole or not at all."""
    beside = file.with_suffix(".json.part")
    beside.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    os.replace(beside, file)
