"""Compute studies: `python -m analysis [--list] [--scale S] [--engine E] [NAME ...]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from rich.console import Console

from analysis.scale import Scale, conditions
from analysis.studies import STUDIES, study
from analysis.sweep import Engine, sweep


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments, those of the process by default.

    Returns:
        0; 1 when a cell failed; 2 when an argument is wrong.
    """
    parser = argparse.ArgumentParser(
        prog="python -m analysis",
        description="Compute what is missing of studies. What is there is not computed again.",
        epilog=f"studies: {', '.join(STUDIES)}",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which; all if none is given")
    parser.add_argument("--list", action="store_true", help="list the studies and stop")
    parser.add_argument("--scale", choices=get_args(Scale), help="default: IGR_SCALE or quick")
    parser.add_argument("--engine", choices=get_args(Engine), help="default: IGR_ENGINE or local")
    parser.add_argument("--results", type=Path, metavar="DIR",
                        help="default: IGR_RESULTS or ./results")  # fmt: skip
    arguments = parser.parse_args(argv)
    console = Console()
    given = {
        name: value
        for name in ("scale", "engine", "results")
        if (value := getattr(arguments, name)) is not None
    }
    try:
        here = replace(conditions(), **given)
        if arguments.list:
            for name in STUDIES:
                cells = len(study(name, here.scale).cells)
                console.print(f"{name}: {cells} cells at scale {here.scale}")
            return 0
        chosen = [study(name, here.scale) for name in dict.fromkeys(arguments.names or STUDIES)]
        if here.results.exists() and not here.results.is_dir():
            raise ValueError(f"--results must be a folder, and {here.results} is a file")
    except ValueError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    failed = 0
    for one in chosen:
        swept = sweep(one, here.results, engine=here.engine)
        failed += len(swept.failures)
        console.print(
            f"{one.name}: {len(swept.results)} of {len(set(one.cells))} cells, "
            f"{swept.computed} computed now, {len(swept.failures)} failed; in {here.results}/"
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
