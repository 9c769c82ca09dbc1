"""What the commands share: choosing by name, and how they end."""

from __future__ import annotations

import difflib
import fnmatch
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Never

from rich.console import Console

INTERRUPTED = 130  # 128 and the number of SIGINT, as shells have it


def chosen(wanted: Sequence[str], known: Sequence[str], kind: str) -> list[str]:
    """The names that are meant.

    Args:
        wanted: Names; patterns such as `igr/*`; or what stands before the `/` or the `-` of
            several, such as `igr`.
        known: All names there are.
        kind: What they are names of, for the error.

    Returns:
        In the order of `wanted`, and of `known` within a pattern; each once.

    Raises:
        ValueError: If one is unknown; the message has the nearest ones.

    >>> known = ["igr/1a", "igr/1b", "mgs/2"]
    >>> chosen(["mgs/2", "igr"], known, "figure")
    ['mgs/2', 'igr/1a', 'igr/1b']
    >>> chosen(["igr/1A"], known, "figure")
    Traceback (most recent call last):
    ...
    ValueError: no figure is called 'igr/1A'; close: igr/1a, ...
    """
    found: dict[str, None] = {}
    for name in wanted:
        if name in known:
            matching = [name]
        elif any(sign in name for sign in "*?["):
            matching = fnmatch.filter(known, name)
        else:
            family = name.rstrip("/")
            matching = [one for one in known if one.startswith((f"{family}/", f"{family}-"))]
        if not matching:
            close = nearest(name, known)
            hint = f"close: {', '.join(close)}" if close else "--list shows them all"
            raise ValueError(f"no {kind} is called {name!r}; {hint}")
        found |= dict.fromkeys(matching)
    return list(found)


def nearest(name: str, known: Sequence[str]) -> list[str]:
    """Up to three names like this one, the likeliest first; capitals do not count."""
    by_folded = {other.casefold(): other for other in known}
    close = difflib.get_close_matches(name.casefold(), by_folded, n=3, cutoff=0.5)
    return [by_folded[folded] for folded in close]


def console() -> Console:
    """Where a command prints; a pipe, which has no width of its own, gets 120 columns."""
    usual = Console()
    return usual if usual.is_terminal else Console(width=120)


def listed(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> None:
    """Prints a table on a terminal; into a pipe a line a row, its fields apart by tabs."""
    out = console()
    if not out.is_terminal:
        for row in rows:
            print("\t".join(row))
        return
    from rich.table import Table

    table = Table(title=title)
    for i, name in enumerate(columns):
        table.add_column(name, no_wrap=i == 0)
    for row in rows:
        table.add_row(*row)
    out.print(table)


def duration(seconds: float | None) -> str:
    """Seconds to a minute, then minutes; nothing where nothing is known.

    >>> duration(8.2), duration(245), duration(None)
    ('8 s', '4 min', '')
    """
    if seconds is None:
        return ""
    return f"{seconds:.0f} s" if seconds < 60 else f"{seconds / 60:.0f} min"


def leave(main: Callable[[], int]) -> Never:
    """Runs a command and ends the process with its exit status.

    One that was interrupted has said so, and the process does not wait for threads that still
    compute. One whose reader stops early ends in silence.
    """
    status: Any = 0
    try:
        try:
            status = main()
        except SystemExit as stopped:  # --help has printed, too
            status = stopped.code
        sys.stdout.flush()
    except KeyboardInterrupt:  # before the command could say what is kept
        print("interrupted; nothing was begun", file=sys.stderr)
        status = INTERRUPTED
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        # Python flushes standard output once more as it ends, and would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.stderr.flush()
    if status == INTERRUPTED:
        os._exit(status)
    sys.exit(status)
