"""How far long work is: a bar on a terminal, and elsewhere a line now and then."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.progress import Progress, ProgressColumn
from rich.text import Text

FIRST, EVERY = 10.0, 30.0  # seconds to the first line, and from a line to the next


@contextlib.contextmanager
def shown_on(console: Console, *columns: ProgressColumn) -> Iterator[Progress]:
    """A context with rich's progress of these columns.

    On a terminal and in a notebook it is a bar. Elsewhere, as under `nohup` or in the log of a
    cluster, a thread prints a line for each task, with the time of day and what the columns say in
    words: the first after 10 s, the next every 30 s, also while nothing moves. Work that ends
    sooner prints none.

    Args:
        console: Where it is shown.
        columns: Of the bar; in lines, those of text alone.

    Yields:
        The progress, to which tasks are added.
    """
    if console.is_interactive or console.is_jupyter:
        with Progress(*columns, console=console) as progress:
            yield progress
        return
    progress = Progress(*columns, console=console, disable=True)
    over = threading.Event()
    teller = threading.Thread(target=_tell, args=(progress, columns, over), daemon=True)
    teller.start()
    try:
        yield progress
    finally:
        over.set()
        teller.join(timeout=1.0)  # who prints into a pipe that nobody reads is not waited for


def minutes(seconds: float) -> str:
    """Seconds as minutes and seconds.

    >>> minutes(980.2)
    '16:20'
    """
    return "{}:{:02d}".format(*divmod(round(seconds), 60))


def _tell(progress: Progress, columns: Sequence[ProgressColumn], over: threading.Event) -> None:
    wait = FIRST
    with contextlib.suppress(OSError):  # a full disk: the work itself goes on
        while not over.wait(wait):
            for task in progress.tasks:
                said = [column(task) for column in columns]
                words = [one.plain.strip() for one in said if isinstance(one, Text)]
                line = "  ".join([time.strftime("%H:%M:%S"), *filter(None, words)])
                progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
            wait = EVERY
