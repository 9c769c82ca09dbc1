"""Run the cells of a study that have no result yet, whatever becomes of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn
from rich.text import Text

from analysis.progress import minutes, shown_on
from analysis.sweep import results
from analysis.sweep.cell import run_cell, traceback_of
from analysis.sweep.cluster import run_on_cluster
from analysis.sweep.gpus import shared_out, visible_gpus
from analysis.sweep.identity import canonical, cell_name, code_version
from analysis.sweep.on_gpus import run_on_gpus
from analysis.sweep.results import CellResult

Engine = Literal["local", "ray"]


@dataclass(frozen=True)
class Study:
    """A function and the cells it is to be run on.

    Attributes:
        name: The name of its folder.
        run: Takes a cell and returns a mapping of names to arrays and to what JSON can hold. It is
            a function of a module, and depends on its cell and the code alone.
        cells: One frozen dataclass each; equal ones are one cell.
        cost: What a cell takes, in any unit; for the time left alone.
    """

    name: str
    run: Callable[[Any], Mapping[str, Any]]
    cells: tuple[Any, ...]
    cost: Callable[[Any], float] = lambda cell: 1.0


@dataclass(frozen=True)
class Failure:
    """A cell that raised: its name, its configuration and the traceback as text."""

    name: str
    cell: Any
    error: str


class CellFailed(RuntimeError):
    """Raised by `Sweep.__getitem__` for a cell that failed."""


@dataclass(frozen=True)
class Sweep:
    """The state of a study after a sweep.

    Attributes:
        study: The study.
        results: By cell, what was there and what was computed now.
        failures: The cells that raised.
        computed: How many cells were computed now.
    """

    study: Study
    results: Mapping[Any, CellResult]
    failures: tuple[Failure, ...] = ()
    computed: int = 0

    def __getitem__(self, cell: Any) -> CellResult:
        if cell in self.results:
            return self.results[cell]
        for failure in self.failures:
            if failure.cell == cell:
                raise CellFailed(f"{cell} failed:\n{failure.error}")
        raise KeyError(f"{cell} is no cell of {self.study.name}")


def sweep(
    study: Study,
    folder: Path,
    *,
    engine: Engine = "local",
    console: Console | None = None,
    told: Callable[[int, int], None] | None = None,
) -> Sweep:
    """Compute what is missing of a study and return all of it.

    Each result is written when it is there, in whole, under a name made of its configuration and
    the code's version: a run that was stopped, by `kill -9` too, is taken up where it was, and a
    changed cell or changed code is computed anew. A cell that raises is reported at the end and
    tried again by the next sweep.

    Args:
        study: What to compute.
        folder: Where the results of all studies are; this one's are in `folder/study.name`.
        engine: "local": one cell after the other in this process, so that cells share what JAX has
            compiled, which is dropped before it grows too much. Where `visible_gpus` finds several,
            as many cells at a time, each GPU with a process of its own that does the same; a study
            of fewer cells has several GPUs a cell. A cell whose process dies is run once more, and
            a script has to keep what it does under `if __name__ == "__main__"`. "ray": on the Ray
            cluster this machine belongs to or `RAY_ADDRESS` names, or else on Ray started here; one
            GPU a cell where there are GPUs; a cell whose worker dies is run again.
        console: Where progress goes, as a bar or, where it is no terminal, a line now and then;
            standard error if not given.
        told: Called with how many cells are computed and how many there are to compute, instead of
            that.

    Returns:
        The results and the failures.

    Raises:
        ValueError: If the engine is unknown, or a result on disk is damaged.
        TypeError: If a cell is no frozen dataclass of plain values.
        ImportError: If the engine is "ray" and Ray is not installed.

    >>> import tempfile
    >>> @dataclass(frozen=True)
    ... class Cell:
    ...     n: int
    >>> from analysis.sweep.run import _square_of  # a cell's function is in a module
    >>> study = Study("squares", _square_of, (Cell(2), Cell(3)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     first = sweep(study, Path(folder), console=Console(quiet=True))
    ...     again = sweep(study, Path(folder), console=Console(quiet=True))
    >>> first.computed, again.computed, again[Cell(3)]["square"]
    (2, 0, 9)
    """
    if engine not in get_args(Engine):
        raise ValueError(f"engine must be {' or '.join(get_args(Engine))}; got {engine!r}.")
    code = code_version(study.run)
    names = {cell: cell_name(cell, code) for cell in study.cells}
    here = Path(folder) / study.name
    failures: list[Failure] = []
    computed = 0
    if not all(results.there(here, name) for name in names.values()):
        console = console or Console(stderr=True)
        here.mkdir(parents=True, exist_ok=True)
        with _alone(here, console):
            results.sweep_up(here)
            missing = [cell for cell, name in names.items() if not results.there(here, name)]
            for cell, outcome in _shown(study, missing, engine, console, told):
                if isinstance(outcome, CellResult):
                    try:
                        results.write(here, names[cell], _signed(outcome, cell, code))
                        computed += 1
                    except TypeError as error:  # what it returned cannot be kept
                        failures.append(Failure(names[cell], cell, traceback_of(error)))
                else:
                    failures.append(Failure(names[cell], cell, outcome))
        _report(study, failures, console)
    found = {cell: results.read(here, name) for cell, name in names.items()}
    kept = {cell: result for cell, result in found.items() if result is not None}
    return Sweep(study, kept, tuple(failures), computed)


def missing(study: Study, folder: Path) -> tuple[Any, ...]:
    """The cells of a study that have no result yet, each once.

    Args:
        study: The study.
        folder: As for `sweep`.
    """
    code, here = code_version(study.run), Path(folder) / study.name
    return tuple(
        cell
        for cell in dict.fromkeys(study.cells)
        if not results.there(here, cell_name(cell, code))
    )


def _outcomes(study: Study, cells: list[Any], engine: Engine) -> Iterator[tuple[Any, Any]]:
    gpus = visible_gpus()
    dearest_first = sorted(cells, key=study.cost, reverse=True)
    if engine == "ray":
        yield from run_on_cluster(study.run, dearest_first)
    elif len(gpus) > 1:
        # By all cells of the study: how a cell is computed does not depend on what is missing.
        shares = shared_out(gpus, len(set(study.cells)))
        yield from run_on_gpus(study.run, dearest_first, shares)
    else:
        yield from ((cell, run_cell(study.run, cell)) for cell in cells)


def _shown(
    study: Study,
    cells: list[Any],
    engine: Engine,
    console: Console,
    told: Callable[[int, int], None] | None,
) -> Iterator[tuple[Any, Any]]:
    """The outcomes as they come, and beside them what is done and the time left, or who is told."""
    if told is not None:
        told(0, len(cells))
        for done, outcome in enumerate(_outcomes(study, cells, engine), start=1):
            yield outcome
            told(done, len(cells))
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _TimeLeft())
    with shown_on(console, *columns) as progress:
        total = sum(study.cost(cell) for cell in cells)
        task = progress.add_task(study.name, total=len(cells), share=0.0)
        done = 0.0
        for cell, outcome in _outcomes(study, cells, engine):
            yield cell, outcome
            done += study.cost(cell)
            progress.update(task, advance=1, share=done / total)


class _TimeLeft(ProgressColumn):
    """The time left, from the costs of the cells and the pace so far."""

    def render(self, task: Task) -> Text:
        share, elapsed = task.fields["share"], task.elapsed or 0.0
        if not share:
            return Text("time left: known after the first cell")
        return Text(f"about {minutes(elapsed * (1 / share - 1))} left")


def _report(study: Study, failures: list[Failure], console: Console) -> None:
    for failure in failures:
        console.print(f"[bold red]{study.name}: a cell failed[/]")
        console.print(f"{failure.cell}\n{failure.error}", markup=False, highlight=False)


class _alone:
    """Holds the lock of a study's folder; says so when another run has it."""

    def __init__(self, folder: Path, console: Console):
        self.lock, self.console, self.folder = FileLock(folder / ".lock"), console, folder

    def __enter__(self) -> None:
        try:
            self.lock.acquire(blocking=False)
        except Timeout:
            self.console.print(f"another run is at work in {self.folder}: waiting for its end")
            self.lock.acquire()

    def __exit__(self, *error: object) -> None:
        self.lock.release()


def _signed(result: CellResult, cell: Any, code: str) -> CellResult:
    return CellResult(result.values, {"config": canonical(cell), "code": code, **result.record})


def _square_of(cell: Any) -> dict[str, int]:  # the docstring's example
    return {"square": cell.n**2}
