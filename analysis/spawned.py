"""Processes that are started afresh, and that nothing outlives."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any


class Spawned(ProcessPoolExecutor):
    """A pool of processes that inherit nothing but the environment: JAX does not survive a fork.

    They ignore Ctrl-C, which the process that started them answers, and end with it, also where it
    is killed. Each runs the main script's imports once more, so that a script has to keep its work
    under `if __name__ == "__main__"`.
    """

    def __init__(
        self,
        processes: int,
        environment: Mapping[str, str],
        begin: Callable[..., object] | None = None,
        arguments: tuple[Any, ...] = (),
    ):
        """Start nothing yet: a process is started by the first task that finds none free.

        Args:
            processes: How many at the most.
            environment: Variables that the processes have from their start, before any import,
                beside those of this process.
            begin: Called in each process before its first task.
            arguments: What it is called with.
        """
        context = multiprocessing.get_context("spawn")
        # Nothing is ever sent: what counts is when the other end is closed, by whatever cause.
        watched, self._held = context.Pipe(duplex=False)
        self._environment = environment
        super().__init__(processes, context, _begin, (watched, begin, arguments))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As in `ProcessPoolExecutor`."""
        with _added(self._environment):  # the process is started in here, if one is
            return super().submit(fn, *args, **kwargs)

    def end(self) -> None:
        """End the processes at once, whatever they are doing; `shutdown` waits for them."""
        self._held.close()
        self.shutdown(cancel_futures=True)


@contextmanager
def _added(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _begin(watched: Connection, begin: Callable[..., object] | None, arguments: tuple) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_when_closed, args=(watched,), daemon=True).start()
    if begin is not None:
        begin(*arguments)


def _end_when_closed(watched: Connection) -> None:
    with suppress(OSError):  # on Windows the closed end is an error
        watched.poll(None)
    os._exit(1)
