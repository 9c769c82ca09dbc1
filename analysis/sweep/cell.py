"""One cell of a study, in whatever process it runs."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from analysis.sweep.compiled_programs import drop_compiled_programs
from analysis.sweep.results import CellResult


def run_cell(run: Callable[[Any], Mapping[str, Any]], cell: Any) -> CellResult | str:
    """Run a cell.

    Args:
        run: As in `Study`.
        cell: What it is run on.

    Returns:
        Its result, with what it took and where; or the traceback as text where it raised.
    """
    drop_compiled_programs()
    start, worked = time.perf_counter(), time.process_time()
    try:
        values = dict(run(cell))
    except Exception as error:
        return traceback_of(error)
    took = {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - worked,  # what it takes where others work, too
        "peak_bytes": peak_bytes(),
    }
    return CellResult(values, took | _surroundings())


def peak_bytes() -> int | None:
    """The most memory that this process has had so far; None where the system does not say."""
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def traceback_of(error: BaseException) -> str:
    """An error with its traceback, as text."""
    return "".join(traceback.format_exception(error))


def _surroundings() -> dict[str, Any]:
    import jax  # `analysis.sweep` lists studies without JAX, whose import takes a second

    packages = ("jax", "jaxlib", "optax", "equinox", "numpy")
    return {
        "versions": {package: version(package) for package in packages},
        "commit": commit(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "device": jax.devices()[0].device_kind,
        "devices": jax.local_device_count(),
    }


@cache
def commit() -> str:
    """The commit that is checked out, with "and changes" where its code differs from it.

    Outside a repository "unknown".
    """
    code = ["--porcelain", "-uno", "--", ":/igr", ":/analysis"]
    try:
        head, changes = (
            subprocess.run(
                ["git", *command],
                capture_output=True,
                text=True,
                check=True,
                cwd=Path(__file__).parent,
            ).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", *code])
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head} and changes" if changes else head
