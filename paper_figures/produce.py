"""Draw figures, whatever becomes of each, and show how far it is."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

from analysis.progress import minutes, shown_on
from analysis.scale import Conditions
from paper_figures.draw import Outcome, draw
from paper_figures.figure import Figure
from paper_figures.side_by_side import drawn_side_by_side


def produce(
    figures: Sequence[Figure],
    out: Path,
    conditions: Conditions,
    console: Console,
    processes: int = 1,
) -> list[Outcome]:
    """Draw `figures`, write their files under `out`, and show how far it is.

    A figure `paper/number` becomes `out/paper/number.png`, `.pdf`, `.csv` (the numbers drawn) and
    `.claims.csv`. A figure that raises is noted and the next one is drawn.

    Args:
        figures: What to draw, in this order; all ready.
        out: The directory to write to, made where it is missing.
        conditions: Under which the studies that figures need are computed.
        console: Where progress goes, as a bar or, where it is no terminal, a line now and then.
        processes: How many figures are drawn at a time, each in a process of its own; 1 draws them
            in this one.

    Returns:
        One outcome a figure, in the same order.
    """
    out.mkdir(parents=True, exist_ok=True)  # fails now, not after the first figure's work
    processes = max(1, min(processes, len(figures)))
    outcomes: dict[str, Outcome] = {}
    time_left = _TimeLeft(processes, known=conditions.scale == "quick")
    with shown_on(console, TextColumn("{task.description}"), BarColumn(), time_left) as progress:
        shown = Shown(progress, figures)
        if processes == 1:
            drawn = _one_after_another(figures, out, conditions, shown)
        else:
            drawn = drawn_side_by_side(figures, out, conditions, processes, shown)
        for outcome in drawn:
            outcomes[outcome.figure.name] = outcome
            shown.done(outcome)
    return [outcomes[figure.name] for figure in figures]


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


def _one_after_another(
    figures: Sequence[Figure], out: Path, conditions: Conditions, shown: Shown
) -> Iterator[Outcome]:
    for figure in figures:
        shown.begun(figure)
        yield draw(figure, out, replace(conditions, told=partial(shown.told, figure.name)))


class Shown:
    """A bar over all figures, named after those being drawn and their studies."""

    def __init__(self, progress: Progress, figures: Sequence[Figure]):
        self.progress, self.drawn_in = progress, 0.0
        self.at_work: dict[str, str] = {}
        self.begun_at: dict[str, float] = {}
        self.task = progress.add_task("", total=sum(f.cost or 1.0 for f in figures), drawn_in=0.0,
                                      begun_at=self.begun_at)  # fmt: skip

    def begun(self, figure: Figure) -> None:
        """A figure is being drawn."""
        self.at_work[figure.name], self.begun_at[figure.name] = "", time.perf_counter()
        self._describe()

    def told(self, figure: str, study: str, done: int, cells: int) -> None:
        """Its study has computed so many cells."""
        if figure in self.at_work:  # and not drawn meanwhile
            self.at_work[figure] = f" ({study} {done}/{cells})"
            self._describe()

    def done(self, outcome: Outcome) -> None:
        """A figure is drawn, or has failed."""
        self.at_work.pop(outcome.figure.name, None)
        self.begun_at.pop(outcome.figure.name, None)
        self.drawn_in += outcome.seconds
        self.progress.update(self.task, advance=outcome.figure.cost or 1.0, drawn_in=self.drawn_in)
        self._describe()
        self.progress.console.print(_line(outcome))

    def _describe(self) -> None:
        names = ", ".join(f"[bold]{name}[/]{study}" for name, study in self.at_work.copy().items())
        self.progress.update(self.task, description=names)


def _line(outcome: Outcome) -> Text:
    name = f"{outcome.figure.name:<18}{outcome.seconds:7.1f} s  "
    if outcome.error is not None:
        return Text(name + "failed: " + outcome.error.strip().splitlines()[-1], style="bold red")
    holding = sum(claim.holds for claim in outcome.claims)
    return Text(f"{name}{holding} of {len(outcome.claims)} claims hold")


class _TimeLeft(ProgressColumn):
    """The time left by the figures' costs and the pace of those drawn so far.

    Costs are those at scale "quick"; at another, nothing is known before a figure is drawn. Then,
    and where figures take longer than that, the time that has passed.
    """

    def __init__(self, processes: int, known: bool):
        self.processes, self.known = processes, known
        super().__init__()

    def render(self, task: Task) -> Text:
        pace = task.fields["drawn_in"] / task.completed if task.completed else 1.0
        now = time.perf_counter()
        running = sum(now - begun for begun in list(task.fields["begun_at"].values()))
        left = max(0.0, pace * (task.remaining or 0.0) - running) / self.processes
        if not (left or task.finished) or not (self.known or task.completed):
            return Text(f"{minutes(task.elapsed or 0.0)} so far")
        return Text(f"about {minutes(left)} left")
