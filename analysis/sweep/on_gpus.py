"""The cells of a study side by side on the GPUs of this machine."""

from __future__ import annotations

import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from analysis.spawned import Spawned
from analysis.sweep.cell import run_cell, traceback_of
from analysis.sweep.results import CellResult


def run_on_gpus(
    run: Callable[[Any], Mapping[str, Any]],
    cells: Sequence[Any],
    shares: Sequence[str],
    *,
    retries: int = 1,
) -> Iterator[tuple[Any, CellResult | str]]:
    """Run cells in one process a share of the GPUs and give each outcome when it is there.

    A process runs one cell after the other and keeps what it has compiled. Each is a pool of its
    own, so that one that dies costs the cell that it was running and no other.

    Args:
        run: As in `Study`.
        cells: The cells, in the order in which they are begun.
        shares: What `CUDA_VISIBLE_DEVICES` is to each process.
        retries: How often a cell whose process died is run again before it counts as failed. A cell
            that raises is not run again.

    Yields:
        Pairs of a cell and its result or the text of its error.
    """
    waiting, died = deque(cells), Counter[Any]()
    running: dict[Future[CellResult | str], tuple[str, Any]] = {}
    pools: dict[str, Spawned] = {}

    def begin(share: str) -> None:
        cell = waiting.popleft()
        if share not in pools:
            pools[share] = Spawned(1, _environment(share))
        running[pools[share].submit(run_cell, run, cell)] = share, cell

    try:
        for share in shares[: len(waiting)]:
            begin(share)
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                share, cell = running.pop(future)
                try:
                    outcome = future.result()
                except BrokenProcessPool:
                    pools.pop(share).end()
                    died[cell] += 1
                    outcome = f"Its process died {died[cell]} times: out of memory, or killed."
                    if died[cell] <= retries:
                        waiting.append(cell)  # last, when fewer may want the machine's memory
                        outcome = None
                except Exception as error:  # what it returned cannot be sent
                    outcome = traceback_of(error)
                if waiting:
                    begin(share)
                if outcome is not None:
                    yield cell, outcome
    finally:
        for pool in pools.values():
            if running:  # interrupted
                pool.end()
            pool.shutdown()


def _environment(share: str) -> dict[str, str]:
    """What a process has beside the environment of this one: its GPUs, and the same precision."""
    passed = {
        "CUDA_VISIBLE_DEVICES": share,
        # This process may use the GPU, too: to draw, say.
        "XLA_PYTHON_CLIENT_PREALLOCATE": os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE", "false"),
    }
    jax = sys.modules.get("jax")  # where nobody has imported it, nobody has set it
    return passed if jax is None else passed | {"JAX_ENABLE_X64": str(jax.config.jax_enable_x64)}
