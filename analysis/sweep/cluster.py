"""The cells of a study on a Ray cluster."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from analysis.sweep.cell import run_cell
from analysis.sweep.results import CellResult


def run_on_cluster(
    run: Callable[[Any], Mapping[str, Any]], cells: list[Any], *, retries: int = 3
) -> Iterator[tuple[Any, CellResult | str]]:
    """Run cells on Ray and give each one's outcome when it is there, in whatever order.

    Ray in this process is used as it is; else that of `RAY_ADDRESS` (or of this machine's
    cluster), which gets this copy of `igr` and `analysis`; else one is started here and stopped
    at the end. Results travel to this process, which writes them: the workers need no common disk.

    Args:
        run: As in `Study`.
        cells: The cells.
        retries: How often a cell whose worker died is run again before it counts as failed. A cell
            that raises is not run again.

    Yields:
        Pairs of a cell and its result or the text of its error.

    Raises:
        ImportError: If Ray is not installed.
    """
    try:
        import ray  # pyright: ignore[reportMissingImports]
        from ray.exceptions import RayError  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            "--engine ray needs Ray: python -m pip install -e '.[cluster]', or use --engine local"
        ) from error
    started = not ray.is_initialized()
    if started:
        ray.init(
            address=os.environ.get("RAY_ADDRESS"),
            runtime_env=_environment(),
            include_dashboard=False if "RAY_ADDRESS" not in os.environ else None,
            log_to_driver=False,
            configure_logging=False,
        )
    try:
        gpus = 1 if ray.cluster_resources().get("GPU", 0) >= 1 else 0
        remote = ray.remote(num_gpus=gpus, max_retries=retries)(run_cell)
        waiting = {remote.remote(run, cell): cell for cell in cells}
        while waiting:
            (ready,), _ = ray.wait(list(waiting), num_returns=1)
            cell = waiting.pop(ready)
            try:
                yield cell, ray.get(ready)
            except RayError as error:
                yield cell, f"{type(error).__name__}: {error}"
    finally:
        if started:
            ray.shutdown()


def _environment() -> dict[str, Any]:
    """What a worker elsewhere needs: our packages, where the data are, the precision."""
    found = (importlib.util.find_spec(package) for package in ("igr", "analysis"))
    packages = [str(Path(str(spec.origin)).parent) for spec in found if spec is not None]
    passed = {k: v for k, v in os.environ.items() if k in ("IGR_DATA", "JAX_ENABLE_X64")}
    return {"py_modules": packages, "env_vars": passed}
