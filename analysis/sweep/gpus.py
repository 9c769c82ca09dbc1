"""The GPUs of this machine, counted without starting JAX, which would take memory on each."""

from __future__ import annotations

import importlib.util
import os
import pkgutil
import re
import subprocess
from collections.abc import Sequence
from functools import cache
from itertools import takewhile
from pathlib import Path

_DRIVER = Path("/proc/driver/nvidia/gpus")
_NAME = re.compile(r"\d+|(GPU|MIG)-.+")


def visible_gpus() -> tuple[str, ...]:
    """The NVIDIA GPUs that JAX would find, by what `CUDA_VISIBLE_DEVICES` calls each.

    None where `JAX_PLATFORMS` leaves them out or JAX is installed without CUDA; else those that
    `CUDA_VISIBLE_DEVICES` names, up to the first that is no name, as CUDA reads it; else those that
    `nvidia-smi` lists or, where it does not answer, those of which the driver has a folder. A
    container may show the folders of more GPUs than it may use.
    """
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms and not {"cuda", "gpu"} & set(platforms.split(",")):
        return ()
    if not _jax_has_cuda():
        return ()
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        return tuple(str(number) for number in range(_in_this_machine()))
    return tuple(takewhile(_NAME.fullmatch, (name.strip() for name in given.split(","))))


def shared_out(gpus: Sequence[str], cells: int) -> tuple[str, ...]:
    """Shares of the GPUs, equal ones, for so many cells: what each cell's process is to see.

    One GPU a share, and more where there are more GPUs than cells.

    >>> shared_out(("0", "1", "2", "3"), 9)
    ('0', '1', '2', '3')
    >>> shared_out(("0", "1", "2", "3", "4"), 2)
    ('0,1', '2,3')
    """
    number = min(cells, len(gpus))
    each = len(gpus) // number
    return tuple(",".join(gpus[i * each : (i + 1) * each]) for i in range(number))


def leave_gpus_to_cells(engine: str) -> None:
    """Let this process take no more of a GPU than it needs, where others run cells there.

    By itself JAX takes three quarters of the memory of every GPU as it starts, so this comes
    before. `XLA_PYTHON_CLIENT_PREALLOCATE` is left as it is where it is set.

    Args:
        engine: As in `sweep`.
    """
    gpus = visible_gpus()
    if len(gpus) > 1 or (gpus and engine == "ray"):
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


@cache
def _in_this_machine() -> int:
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=30
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return len(list(_DRIVER.iterdir())) if _DRIVER.is_dir() else 0
    return sum(line.startswith("GPU ") for line in listed.splitlines())


def _jax_has_cuda() -> bool:
    plugins = importlib.util.find_spec("jax_plugins")
    paths = plugins and plugins.submodule_search_locations
    return any("cuda" in module.name for module in pkgutil.iter_modules(paths or ()))
