"""Dropping what JAX has compiled, in a process that runs many cells."""

from __future__ import annotations

import gc
from pathlib import Path

_MAPPED = Path("/proc/self/maps")
_ALLOWED = Path("/proc/sys/vm/max_map_count")


def drop_compiled_programs(share: float = 0.5) -> bool:
    """Drops every compiled program once so many are kept that the next might not fit.

    XLA maps about a hundred pieces of memory for a program. Linux allows a process 65,530 of them
    (`vm.max_map_count`), and XLA's compiler crashes when they are used up. Elsewhere nothing is
    done.

    Args:
        share: Of the pieces allowed, those that may be in use.

    Returns:
        Whether programs were dropped.
    """
    try:
        with _MAPPED.open("rb") as lines:
            mapped = sum(1 for _ in lines)
        allowed = int(_ALLOWED.read_text(encoding="ascii"))
    except OSError:
        return False
    if mapped <= share * allowed:
        return False
    import jax  # `analysis.sweep` lists studies without JAX, whose import takes a second

    jax.clear_caches()
    gc.collect()
    return True
