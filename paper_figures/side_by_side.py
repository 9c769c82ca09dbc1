"""Draw figures in several processes at once, each process one figure at a time."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any, Protocol

from analysis.scale import Conditions
from analysis.spawned import Spawned
from paper_figures.draw import Outcome, draw
from paper_figures.figure import Figure


class Watcher(Protocol):
    """Who is told what goes on."""

    def begun(self, figure: Figure) -> None:
        """A figure is being drawn from now on."""

    def told(self, figure: str, study: str, done: int, cells: int) -> None:
        """A study that a figure needs has computed so many of its cells."""


def drawn_side_by_side(
    figures: Sequence[Figure], out: Path, conditions: Conditions, processes: int, watcher: Watcher
) -> Iterator[Outcome]:
    """Draw figures in several processes.

    Figures of one module, and then those of one paper, are kept apart where others are left to
    draw: they may need the same study, which one of them computes while the other waits.

    Args:
        figures: What to draw, all ready.
        out: The directory to write to.
        conditions: Under which the studies that figures need are computed.
        processes: How many figures to draw at a time.
        watcher: Told of what begins and of how far studies are, from another thread.

    Yields:
        One outcome a figure, as they come. One whose process dies (out of memory, or killed) has
        failed, and the others are drawn by new processes.
    """
    waiting = list(figures)
    while waiting:
        news = multiprocessing.get_context("spawn").SimpleQueue()
        over = threading.Event()
        reader = threading.Thread(target=_read, args=(news, watcher, over), daemon=True)
        reader.start()
        pool = Spawned(min(processes, len(waiting)), _environment(), _begin, (news,))
        running: dict[Future[Outcome], Figure] = {}
        try:
            while waiting or running:
                while waiting and len(running) < processes:
                    figure = next_of(waiting, list(running.values()))
                    waiting.remove(figure)
                    watcher.begun(figure)
                    running[pool.submit(_draw, figure, out, conditions)] = figure
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    figure = running.pop(future)
                    yield future.result()
        except BrokenProcessPool:
            # Which process died is not known: what was being drawn is drawn again, alone.
            lost = [figure, *running.values()]
            if len(lost) == 1:
                yield Outcome(figure, 0.0, error="Its process died: out of memory, or killed.")
            else:
                for one in lost:
                    yield from drawn_side_by_side([one], out, conditions, 1, watcher)
        finally:
            # Where it is interrupted, what is half done is given up.
            if running:
                pool.end()
            pool.shutdown()
            over.set()
            reader.join(timeout=1.0)  # one that was ended in the middle of a word is not waited for


def next_of(waiting: Sequence[Figure], running: Sequence[Figure]) -> Figure:
    """Of the figures that wait, the dearest that has least to do with those being drawn."""
    modules = {_module(figure) for figure in running}
    papers = {figure.paper for figure in running}
    return min(
        waiting,
        key=lambda figure: (
            _module(figure) in modules,
            figure.paper in papers,
            -(figure.cost or 0.0),
        ),
    )


def _module(figure: Figure) -> str:
    return (figure.source or "").split(":")[0]


def _environment() -> dict[str, str]:
    """Settings of the processes: on a GPU each takes the memory it needs, and not most of it."""
    name = "XLA_PYTHON_CLIENT_PREALLOCATE"
    return {name: os.environ.get(name, "false")}


def _read(news: SimpleQueue[Any], watcher: Watcher, over: threading.Event) -> None:
    while not over.wait(0.1):
        while not news.empty():
            watcher.told(*news.get())


# Below: what runs in the processes.

_news: SimpleQueue[Any] | None = None


def _begin(news: SimpleQueue[Any]) -> None:
    global _news
    _news = news


def _draw(figure: Figure, out: Path, conditions: Conditions) -> Outcome:
    return draw(figure, out, replace(conditions, told=partial(_tell, figure.name)))


def _tell(figure: str, study: str, done: int, cells: int) -> None:
    assert _news is not None
    _news.put((figure, study, done, cells))
