"""Draw figures one after another and write what each gives, whatever becomes of the others."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

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


def produce(
    figures: Sequence[Figure], out: Path, conditions: Conditions, console: Console
) -> list[Outcome]:
    """Draw `figures`, write their files under `out`, and show how far it is.

    A figure `paper/number` becomes `out/paper/number.png`, `.pdf`, `.csv` (the numbers drawn) and
    `.claims.csv`. A figure that raises is noted and the next one is drawn.

    Args:
        figures: What to draw, in this order; all ready.
        out: The directory to write to, made where it is missing.
        conditions: Under which the studies that figures need are computed.
        console: Where progress goes.

    Returns:
        One outcome a figure, in the same order.
    """
    out.mkdir(parents=True, exist_ok=True)  # fails now, not after the first figure's work
    outcomes = []
    with Progress(
        TextColumn("{task.description}"), BarColumn(), _TimeLeft(), console=console
    ) as progress:
        task = progress.add_task("", total=sum(f.cost or 1.0 for f in figures), drawn_in=0.0)
        for figure in figures:
            progress.update(task, description=f"[bold]{figure.name}[/]")
            outcome = _draw(figure, out, conditions)
            outcomes.append(outcome)
            progress.update(
                task,
                advance=figure.cost or 1.0,
                drawn_in=sum(outcome.seconds for outcome in outcomes),
            )
            progress.console.print(_line(outcome))
    return outcomes


def claims_table(outcomes: Iterable[Outcome]) -> Table:
    """Every claim of every figure drawn: the statement, what was measured, whether it holds."""
    table = Table(title="Claims", show_lines=True, expand=True)
    table.add_column("figure", no_wrap=True)
    table.add_column("claim", ratio=4)
    table.add_column("measured", ratio=4)
    table.add_column("paper", ratio=2)
    table.add_column("holds", ratio=4)
    for outcome in outcomes:
        for claim in outcome.claims:
            table.add_row(
                outcome.figure.name,
                Text(claim.claim),
                Text(claim.measured),
                Text(claim.paper),
                Text(claim.verdict, style="green" if claim.holds else "bold red"),
            )
    return table


def _draw(figure: Figure, out: Path, conditions: Conditions) -> Outcome:
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


def _line(outcome: Outcome) -> Text:
    name = f"{outcome.figure.name:<18}{outcome.seconds:7.1f} s  "
    if outcome.error is not None:
        return Text(name + "failed: " + outcome.error.strip().splitlines()[-1], style="bold red")
    holding = sum(claim.holds for claim in outcome.claims)
    return Text(f"{name}{holding} of {len(outcome.claims)} claims hold")


class _TimeLeft(ProgressColumn):
    """The time left by the figures' known costs and the pace of those drawn so far."""

    def render(self, task: Task) -> Text:
        pace = task.fields["drawn_in"] / task.completed if task.completed else 1.0
        running = (task.elapsed or 0.0) - task.fields["drawn_in"]
        left = max(0.0, pace * (task.remaining or 0.0) - running)
        minutes, seconds = divmod(round(left), 60)
        return Text(f"about {minutes}:{seconds:02d} left")
