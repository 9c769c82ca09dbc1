"""One cell of a study, in whatever process it runs."""

from __future__ import annotations

import platform
import time
import traceback
from collections.abc import Callable, Mapping
from importlib.metadata import version
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
    start = time.perf_counter()
    try:
        values = dict(run(cell))
    except Exception as error:
        return traceback_of(error)
    return CellResult(values, {"seconds": time.perf_counter() - start} | _surroundings())


def traceback_of(error: BaseException) -> str:
    """An error with its traceback, as text."""
    return "".join(traceback.format_exception(error))


def _surroundings() -> dict[str, Any]:
    import jax  # `analysis.sweep` lists studies without JAX, whose import takes a second

    packages = ("jax", "jaxlib", "optax", "equinox", "numpy")
    return {
        "versions": {package: version(package) for package in packages},
        "python": platform.python_version(),
        "device": jax.devices()[0].device_kind,
        "devices": jax.local_device_count(),
    }
