"""Dropping what JAX has compiled, in a process that runs many cells."""

from __future__ import annotations

import ctypes
import gc
import math
import os
from pathlib import Path

_MAPPED = Path("/proc/self/maps")
_ALLOWED = Path("/proc/sys/vm/max_map_count")
_USED = Path("/proc/self/statm")

_least_used = math.inf
"""The bytes in use when this process asked first, or after it dropped its programs last."""


def drop_compiled_programs(share: float = 0.5, grown: float = 0.75 * 2**30) -> bool:
    """Drops every compiled program once so many are kept that the next might not fit.

    XLA maps about a hundred pieces of memory for a program. Linux allows a process 65,530 of them
    (`vm.max_map_count`), and XLA's compiler crashes when they are used up. A program of a network
    and its trace take some ten megabytes, which the C library keeps unless it is told to give them
    back. Other systems than Linux say neither, and there nothing is done.

    Args:
        share: Of the pieces allowed, those that may be in use.
        grown: By how many bytes the process may have grown since it asked first, or dropped last.

    Returns:
        Whether programs were dropped.
    """
    global _least_used
    try:
        with _MAPPED.open("rb") as lines:
            mapped = sum(1 for _ in lines)
        allowed = int(_ALLOWED.read_text(encoding="ascii"))
        used = _bytes_in_use()
    except OSError:
        return False
    _least_used = min(_least_used, used)
    if mapped <= share * allowed and used <= _least_used + grown:
        return False
    import jax  # `analysis.sweep` lists studies without JAX, whose import takes a second

    jax.clear_caches()
    gc.collect()
    _give_back()
    _least_used = _bytes_in_use()
    return True


def _bytes_in_use() -> int:
    pages = int(_USED.read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _give_back() -> None:
    """Memory that is free within the process goes back to the system, where the library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc alone
    if trim is not None:
        trim(0)
