"""Work in as many threads as there are cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Job = TypeVar("Job")
Done = TypeVar("Done")


def in_threads(work: Callable[[Job], Done], jobs: Sequence[Job], threads: int) -> list[Done]:
    """The work on every job, in their order.

    Where one raises, or the process is interrupted, no other is begun, and those that are at work
    are not waited for.

    Args:
        work: What is done; it lets go of Python's lock for the most part, as XLA's programs do.
        jobs: What it is done on.
        threads: How many at once.

    >>> in_threads(abs, [-1, 2, -3], 2)
    [1, 2, 3]
    """
    if threads == 1 or len(jobs) == 1:
        return [work(job) for job in jobs]
    pool = ThreadPoolExecutor(threads)
    try:
        done = list(pool.map(work, jobs))
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()
    return done


def cores_allowed() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
