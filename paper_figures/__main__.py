"""Regenerate the papers' figures: `python -m paper_figures [--list] [--all] [NAME ...]`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from rich.console import Console

from analysis.command import INTERRUPTED, console, duration, leave, listed
from analysis.scale import Conditions, Scale, conditions
from analysis.sweep import Engine, leave_gpus_to_cells, visible_gpus
from paper_figures.catalogue import FIGURES, chosen_figures
from paper_figures.claims_page import write_page
from paper_figures.draw import Outcome
from paper_figures.figure import Figure
from paper_figures.gallery import write_gallery
from paper_figures.keep import keep_all
from paper_figures.needed import studies_needed
from paper_figures.plan import described, gpus_used, plan
from paper_figures.produce import claims_table, produce


def main(argv: Sequence[str] | None = None, figures: Sequence[Figure] = FIGURES) -> int:
    """Run the command line.

    Args:
        argv: The arguments, those of the process by default.
        figures: The catalogue to choose from.

    Returns:
        0; 1 when a figure could not be drawn; 2 when an argument is wrong; 130 when it was
        interrupted. A claim that does not hold is a result and not a failure.
    """
    parser = argparse.ArgumentParser(
        prog="python -m paper_figures", description="Regenerate the papers' figures."
    )
    parser.add_argument("names", nargs="*", metavar="NAME",
                        help="figures such as igr/1a, patterns such as 'mgs/A.*', or papers such "
                        "as igr")  # fmt: skip
    parser.add_argument("--list", action="store_true", help="list figures and stop")
    parser.add_argument("--out", type=Path, default=Path("figures"), metavar="DIR",
                        help="where to write (default: ./figures)")  # fmt: skip
    parser.add_argument("--all", action="store_true",
                        help="every ready figure, also those that take minutes")  # fmt: skip
    studies = parser.add_argument_group("studies", "how figures that need one have it computed")
    studies.add_argument("--scale", choices=get_args(Scale), help="default: IGR_SCALE or quick")
    studies.add_argument("--engine", choices=get_args(Engine), help="default: IGR_ENGINE or local")
    studies.add_argument("--results", type=Path, metavar="DIR",
                         help="default: IGR_RESULTS or ./results")  # fmt: skip
    studies.add_argument("--processes", type=int, metavar="N",
                         help="how many figures to draw at a time (default: as many as there are "
                         "cores, at most 4; at full scale, on Ray and on several GPUs, 1)"
                         )  # fmt: skip
    kept = parser.add_argument_group("kept results", "small files that are committed")
    kept.add_argument(
        "--keep",
        type=Path,
        metavar="DIR",
        help="write claims, drawn numbers and the studies' results there too",
    )
    kept.add_argument(
        "--from",
        type=Path,
        metavar="DIR",
        dest="source",
        help="draw what was kept there, and compute nothing",
    )
    kept.add_argument("--claims", type=Path, metavar="FILE",
                      help="write the page of claims from what --from names, and stop")  # fmt: skip
    kept.add_argument(
        "--gallery",
        type=Path,
        metavar="DIR",
        help="write the gallery's pages from what --from names, and stop",
    )
    arguments = parser.parse_args(argv)
    if "matplotlib" not in sys.modules:  # a notebook's backend, or one that is not there
        os.environ["MPLBACKEND"] = "agg"
    try:
        if arguments.all and arguments.names:
            raise ValueError("--all draws every figure; leave out --all or the names")
        if arguments.list:
            _list(chosen_figures(arguments.names or [f.name for f in figures], figures))
            return 0
        if arguments.all:
            drawn = [figure for figure in figures if figure.ready]
        else:
            drawn = ready(arguments.names, figures)
        given = {
            name: value
            for name in ("scale", "engine", "results")
            if (value := getattr(arguments, name)) is not None
        }
        here = replace(conditions(), **given)
        if arguments.claims is not None or arguments.gallery is not None:
            return _pages(arguments.claims, arguments.gallery, arguments.source, figures)
        if arguments.source is not None:
            results = arguments.source / here.scale / "studies"
            if not results.is_dir():
                raise ValueError(f"--from must hold what --keep wrote; there is no {results}")
            here = replace(here, results=results, committed=True)
        if here.results.exists() and not here.results.is_dir():
            raise ValueError(f"--results must be a folder, and {here.results} is a file")
        if arguments.out.exists() and not arguments.out.is_dir():
            raise ValueError(f"--out must be a directory, and {arguments.out} is a file")
        processes = arguments.processes
        if processes is None:
            processes = default_processes(drawn, here)
        if processes < 1:
            raise ValueError(f"--processes must be 1 or more; got {processes}")
    except ValueError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    leave_gpus_to_cells(here.engine)
    if not here.committed and (arguments.all or _takes_long(drawn, here)):
        console().print(_planned(drawn, here, arguments.all))
    try:
        outcomes = produce(drawn, arguments.out, here, console(), processes)
    except KeyboardInterrupt:
        print(f"interrupted; pictures that were finished are in {arguments.out}/ and what was "
              f"computed in {here.results}/, and the same command goes on from there",
              file=sys.stderr)  # fmt: skip
        return INTERRUPTED
    if arguments.keep is not None:
        keep_all(outcomes, arguments.keep, here)
    return report(outcomes, arguments.out, console())


def _pages(
    claims: Path | None, gallery: Path | None, source: Path | None, figures: Sequence[Figure]
) -> int:
    """Write the page of claims, the gallery, or both."""
    option = "--gallery" if claims is None else "--claims"
    if source is None:
        raise ValueError(f"{option} needs --from: the folder that --keep wrote to")
    try:
        if claims is not None:
            print(f"{write_page(claims, source, figures)} claims in {claims}")
        if gallery is not None:
            print(f"{write_gallery(gallery, source, figures)} pictures in {gallery}/")
    except FileNotFoundError as error:
        raise ValueError(str(error)) from error
    return 0


def ready(names: Sequence[str], figures: Sequence[Figure]) -> list[Figure]:
    """The figures of these names, or the ready ones of the default set.

    Of a pattern or a paper, those that are ready.

    Raises:
        ValueError: If a name is unknown, or none that it stands for is ready.
    """
    if not names:
        return [figure for figure in figures if figure.ready and figure.default]
    found: dict[str, Figure] = {}
    for name in names:
        meant = chosen_figures([name], figures)
        if not any(figure.ready for figure in meant):
            possible = ", ".join(figure.name for figure in figures if figure.ready)
            raise ValueError(
                f"figure {name!r} is planned and cannot be drawn yet; ready: {possible}"
            )
        found |= {figure.name: figure for figure in meant if figure.ready}
    return list(found.values())


def default_processes(figures: Sequence[Figure], here: Conditions) -> int:
    """How many figures are drawn at a time: a core each, where that is worth it.

    Four of them stay below 6 GB of memory. To start one takes some seconds, which figures that are
    soon drawn do not give back. Studies at full scale are made for GPUs, and on several GPUs or on
    Ray it is a study's cells that are computed side by side.
    """
    if here.scale == "full" or here.engine == "ray" or len(visible_gpus()) > 1:
        return 1
    if sum(figure.cost or _LONG for figure in figures) < _LONG:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(4, cores or 1)


_LONG = 30.0  # seconds


def _takes_long(figures: Sequence[Figure], here: Conditions) -> bool:
    """Whether figures may take more than a minute: by their costs at quick, at no other known."""
    return here.scale != "quick" or sum(figure.cost or 0.0 for figure in figures) > _A_MINUTE


def _planned(figures: Sequence[Figure], here: Conditions, every: bool) -> str:
    """What has to be computed first: for some figures at most, as they may need a part of it."""
    if every:
        return f"{described(plan(here))}\n{gpus_used(here)}"
    names = studies_needed(figures)
    if names:
        return f"at most {described(plan(here, names))}\n{gpus_used(here)}"
    known = sum(figure.cost or 0.0 for figure in figures) if here.scale == "quick" else None
    takes = "" if known is None else f"; figures take about {duration(known)} on two cores"
    return f"no study is to be computed{takes}"


_A_MINUTE = 60.0  # seconds


def _list(figures: Sequence[Figure]) -> None:
    """Each figure: its name, the paper, what it shows, what it costs, whether it is ready."""
    rows = [
        (figure.name, figure.paper, figure.title, duration(figure.cost),
         "ready" if figure.ready else "planned")
        for figure in figures
    ]  # fmt: skip
    listed(("name", "paper", "shows", "on two cores", "state"), rows, "Figures")


def report(outcomes: Sequence[Outcome], out: Path, console: Console) -> int:
    """Print the claims, the errors and where the files are; return the exit status."""
    console.print(claims_table(outcomes))
    failures = [outcome for outcome in outcomes if outcome.error is not None]
    for failure in failures:
        console.print(f"[bold red]{failure.figure.name} could not be drawn[/]")
        console.print(failure.error, markup=False, highlight=False)
    claims = [claim for outcome in outcomes for claim in outcome.claims]
    console.print(
        f"{len(outcomes) - len(failures)} of {len(outcomes)} figures drawn, "
        f"{sum(claim.holds for claim in claims)} of {len(claims)} claims hold; "
        f"pictures, numbers and claims are in {out}/"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    leave(main)
