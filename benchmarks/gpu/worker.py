"""Rows measured in a process of their own, which is ended where one takes too long.

What hangs in a compiler or on a device hears no signal and returns to no clock: only the end of
its process ends it. The process that keeps the time starts no JAX, so that the device is the
other's alone.
"""

from __future__ import annotations

import importlib
import math
import multiprocessing
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from benchmarks.measure import Row

CARD = "benchmarks.gpu.pieces:Card"
START = 120.0  # seconds in which a process must have found its card


class Skipped(Exception):
    """A piece, or the rest of it, cannot be measured here, and why."""


class TooLong(Exception):
    """A row was not there in the time that it had."""


class Failed(Exception):
    """What a piece failed with in its process."""


class Worker:
    """A process with a card; another one after a row that took too long, or ended it.

    Args:
      tiny: whether everything is of a size that a CPU does in a minute.
      card: the module and the name of what makes a card of `tiny`, with `about()` and `pieces()`.
    """

    def __init__(self, tiny: bool, card: str = CARD):
        self._card = card, tiny
        self._state: dict[str, Any] = {}
        self._process: Any = None
        self.about, self._names = self._started(START)

    def pieces(self) -> dict[str, Callable[[], Iterator[Row]]]:
        """The pieces by name, in their order; what they yield is measured in the process."""
        return {name: partial(Rows, self, name) for name in self._names}

    def ask(self, name: str, fresh: bool, seconds: float) -> Row:
        """The next row of a piece, or its first; a process that has to be started costs it time.

        Raises:
          TooLong: if it is not there after so many seconds.
          Failed: if the piece failed, or the process ended.
        """
        until = time.monotonic() + seconds
        try:
            if self._process is None:
                self._started(seconds)
            self._here.send((name, fresh))
            what, found = self._answer(until - time.monotonic())
        except (EOFError, OSError) as error:
            code = self.end()
            raise Failed(f"its process ended with exit code {code}") from error
        if what == "row":
            row, self._state = found
            return row
        raise {"end": StopIteration, "skipped": Skipped, "failed": Failed}[what](found)

    def end(self) -> int | None:
        """Ends the process, whatever it does; its exit code, of a signal the number below zero."""
        process, self._process = self._process, None
        if process is None:
            return None
        self._here.close()  # one that waits for a question ends by itself
        process.join(0.5)
        process.kill()
        process.join()
        return process.exitcode

    def _started(self, seconds: float) -> tuple[dict[str, Any], list[str]]:
        context = multiprocessing.get_context("spawn")  # a fork would share what JAX holds
        self._here, there = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(there, *self._card, self._state), daemon=True
        )
        self._process.start()
        there.close()
        what, found = self._answer(seconds)
        if what == "failed":
            self.end()
            raise Failed(f"the card cannot be used: {found}")
        return found

    def _answer(self, seconds: float) -> Any:
        if not self._here.poll(None if math.isinf(seconds) else max(seconds, 0)):
            self.end()
            raise TooLong("a row was ended, for it took longer than it may")
        return self._here.recv()


class Rows:
    """The rows of a piece.

    Args:
      worker: where they are measured.
      name: of the piece.
    """

    def __init__(self, worker: Worker, name: str):
        self._worker, self._name, self._fresh = worker, name, True

    def __iter__(self) -> Rows:
        return self

    def __next__(self) -> Row:
        return self.within(math.inf)

    def within(self, seconds: float) -> Row:
        """The next row, or an error after so many seconds."""
        fresh, self._fresh = self._fresh, False
        return self._worker.ask(self._name, fresh, seconds)


def within(rows: Iterator[Row], seconds: float) -> Row:
    """The next row in at most so many seconds, where its iterator can be held to them."""
    return rows.within(seconds) if isinstance(rows, Rows) else next(rows)


def _serve(there: Any, where: str, tiny: bool, state: dict[str, Any]) -> None:
    """Answers what a `Worker` asks, until that ends."""
    module, _, name = where.partition(":")
    try:
        card = getattr(importlib.import_module(module), name)(tiny)
        vars(card).update(state)  # what an earlier process measured of the card itself
        there.send(("started", (card.about(), list(card.pieces()))))
    except Exception as error:
        there.send(("failed", f"{type(error).__name__}: {error}"))
        return
    rows: Iterator[Row] = iter(())
    while True:
        try:
            piece, fresh = there.recv()
        except EOFError:
            return
        try:
            rows = card.pieces()[piece]() if fresh else rows
            answer: Any = "row", (next(rows), dict(vars(card)))
        except StopIteration:
            answer = "end", ""
        except Skipped as why:
            answer = "skipped", str(why)
        except Exception as error:  # such as out of memory: the others count
            answer = "failed", f"{type(error).__name__}: {error}"
        there.send(answer)
