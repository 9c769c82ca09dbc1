"""Compute studies: `python -m analysis [--list] [--scale S] [--engine E] [NAME ...]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from analysis.command import INTERRUPTED, chosen, console, duration, leave, listed
from analysis.scale import Scale, conditions
from analysis.studies import STUDIES, seconds, study
from analysis.sweep import Engine, leave_gpus_to_cells, sweep


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments, those of the process by default.

    Returns:
        0; 1 when a cell failed; 2 when an argument is wrong; 130 when it was interrupted.
    """
    parser = argparse.ArgumentParser(
        prog="python -m analysis",
        description="Compute what is missing of studies. What is there is not computed again.",
        epilog=f"studies: {', '.join(STUDIES)}",
    )
    parser.add_argument("names", nargs="*", metavar="NAME",
                        help="studies, or what they begin with, such as igr; all if none is given"
                        )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="list the studies and stop")
    parser.add_argument("--scale", choices=get_args(Scale), help="default: IGR_SCALE or quick")
    parser.add_argument("--engine", choices=get_args(Engine), help="default: IGR_ENGINE or local")
    parser.add_argument("--results", type=Path, metavar="DIR",
                        help="default: IGR_RESULTS or ./results")  # fmt: skip
    arguments = parser.parse_args(argv)
    given = {
        name: value
        for name in ("scale", "engine", "results")
        if (value := getattr(arguments, name)) is not None
    }
    try:
        here = replace(conditions(), **given)
        names = chosen(arguments.names or list(STUDIES), list(STUDIES), "study")
        if arguments.list:
            _list(names, here.scale)
            return 0
        studies = [study(name, here.scale) for name in names]
        if here.results.exists() and not here.results.is_dir():
            raise ValueError(f"--results must be a folder, and {here.results} is a file")
    except ValueError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    leave_gpus_to_cells(here.engine)
    failed = 0
    try:
        for one in studies:
            swept = sweep(one, here.results, engine=here.engine)
            failed += len(swept.failures)
            console().print(
                f"{one.name}: {len(swept.results)} of {len(set(one.cells))} cells, "
                f"{swept.computed} computed now, {len(swept.failures)} failed; in {here.results}/"
            )
    except KeyboardInterrupt:
        print(f"interrupted; the cells that were finished are in {here.results}/, and the same "
              "command goes on from there", file=sys.stderr)  # fmt: skip
        return INTERRUPTED
    return 1 if failed else 0


def _list(names: Sequence[str], scale: Scale) -> None:
    rows = [
        (name, f"{len(set(study(name, scale).cells))} cells", duration(seconds(name, scale)))
        for name in names
    ]  # fmt: skip
    listed(("study", f"at scale {scale}", "on two cores"), rows, "Studies")


if __name__ == "__main__":
    leave(main)
