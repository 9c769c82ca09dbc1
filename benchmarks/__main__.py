"""`python -m benchmarks [NAME ...]`: one table of what was measured beside its target."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib
import json
import pkgutil
import platform
import sys
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console
from rich.table import Table

import benchmarks
from analysis.command import INTERRUPTED, chosen, console, duration, leave, listed
from benchmarks.measure import Row

# What each took on one core beside a busy one; one that is not here has not been timed.
SECONDS: dict[str, float] = {
    "comparison": 210,
    "curvature": 150,
    "curvature_peers": 205,  # with the three that the extra `bench` installs
    "derivation": 31,
    "diagnostics": 47,
    "discrete": 45,
    "edge": 150,
    "field": 116,
    "kinks": 566,
    "penalties": 94,
    "positions": 189,
    "reading": 15,
    "training": 36,
    "transforms": 66,
}
_NOT_BENCHMARKS = ("__main__", "gpu", "measure", "network")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs benchmarks and prints their table.

    Args:
      argv: the arguments; those of the process if not given.

    Returns:
      The exit status: 0, 1 if a benchmark failed to run, 2 for bad arguments, 130 if it was
      interrupted. A target that was missed is in the table and no failure: times depend on the
      machine.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == ["gpu"]:  # one run of its own, with a time and a folder
        from benchmarks import gpu

        return gpu.main(given[1:])
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures igr against its targets and named peers.",
        epilog=f"benchmarks: {', '.join(names())}; gpu is a run of its own: gpu --help",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which; all if none is given")
    parser.add_argument("--list", action="store_true", help="list the benchmarks and stop")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here too")
    options = parser.parse_args(argv)
    try:
        wanted = chosen(options.names or names(), names(), "benchmark")
    except ValueError as error:
        parser.error(str(error))
    if options.list:
        rows = [(name, _about(name), duration(SECONDS.get(name))) for name in wanted]
        listed(("benchmark", "measures", "on one core"), rows, "Benchmarks")
        return 0
    if options.json is not None and (options.json.is_dir() or not options.json.parent.is_dir()):
        parser.error(f"--json must be a file in a folder that is there; got {options.json}")
    found: dict[str, list[Row]] = {}
    failed: dict[str, Exception] = {}
    interrupted = False
    for name in wanted:
        with Console(stderr=True).status(f"measuring {name}"):
            try:
                found[name] = collect(name)
            except Exception as error:  # the others shall be measured and printed none the less
                failed[name] = error
            except KeyboardInterrupt:
                interrupted = True
                break
    if found or not interrupted:
        console().print(table(found))
    for name, error in failed.items():
        print(f"{name} did not run: {type(error).__name__}: {error}", file=sys.stderr)
    if options.json is not None:
        text = json.dumps(record(found), indent=2) + "\n"
        options.json.write_text(text, encoding="utf-8")
    if interrupted:
        rest = " ".join(wanted[len(found) + len(failed) :])
        print(f"interrupted; what was measured is above, and the rest is measured by: "
              f"{parser.prog} {rest}", file=sys.stderr)  # fmt: skip
        return INTERRUPTED
    return 1 if failed else 0


def _about(name: str) -> str:
    """The first line of a benchmark's docstring, read without importing it."""
    text = (Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]


def names() -> list[str]:
    """The benchmarks: modules of this folder with `rows()`."""
    found = (module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    return sorted(name for name in found if name not in _NOT_BENCHMARKS)


def collect(name: str) -> list[Row]:
    """Measures one benchmark."""
    module = importlib.import_module(f"benchmarks.{name}")
    found: list[Row] = []
    before = time.perf_counter()
    for row in module.rows():
        after = time.perf_counter()
        whole = row if isinstance(row, Row) else Row(*row)
        found.append(dataclasses.replace(whole, took=after - before))
        before = after
    return found


def table(found: dict[str, list[Row]]) -> Table:
    """All rows, a section for each benchmark, with a count of the targets met."""
    rows = [row for some in found.values() for row in some]
    met = [row.met for row in rows if row.met is not None]
    result = Table(caption=f"{sum(met)} of {len(met)} targets met")
    for column in ("benchmark", "what"):
        result.add_column(column, overflow="fold")
    result.add_column("measured", justify="right", no_wrap=True)
    for column in ("unit", "target", "met"):
        result.add_column(column)
    result.add_column("took", justify="right", no_wrap=True)
    for name, some in found.items():
        for i, row in enumerate(some):
            verdict = {True: "[green]yes[/green]", False: "[red]no[/red]", None: ""}[row.met]
            first = name if i == 0 else ""
            result.add_row(
                first, row.name, f"{row.measured:.3g}", row.unit, row.target, verdict,
                "" if row.took is None else f"{row.took:.1f} s",
            )  # fmt: skip
        result.add_section()
    return result


def record(found: dict[str, list[Row]]) -> dict[str, object]:
    """The numbers and where they were taken."""
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": dict(_versions(("igr", "jax", "jaxlib", "optax", "diffrax", "sympy", "kauri"))),
        "rows": [
            {
                "benchmark": name,
                "what": row.name,
                "measured": row.measured,
                "unit": row.unit,
                "target": row.target,
                "met": row.met,
                "took": None if row.took is None else round(row.took, 2),
            }
            for name, some in found.items()
            for row in some
        ],
    }


def _versions(packages: Iterable[str]) -> Iterable[tuple[str, str]]:
    for package in packages:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            continue


if __name__ == "__main__":
    leave(main)
