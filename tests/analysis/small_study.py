"""A study without arithmetic worth mentioning, whose cells can be made to misbehave."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Cell:
    n: int
    folder: str = ""  # where each run of a cell leaves a line
    wrong: bool = False
    seconds: float = 0.0
    dies: int = 0  # how many times the process ends under it


def powers(cell: Cell) -> dict:
    seen = 0
    if cell.folder:
        log = Path(cell.folder) / f"{cell.n}.log"
        seen = len(log.read_text()) if log.exists() else 0
        with log.open("a") as file:
            file.write("x")
    if cell.wrong:
        raise ArithmeticError(f"no powers of {cell.n}")
    if seen < cell.dies:
        os._exit(1)
    time.sleep(cell.seconds)
    return {"powers": np.arange(5.0) ** cell.n, "n": cell.n, "file": "a name savez knows"}


def where(cell: Cell) -> dict:
    """The process and the GPUs that it sees; no two that run side by side end before both began."""
    time.sleep(cell.seconds)
    return {"process": os.getpid(), "gpus": os.environ.get("CUDA_VISIBLE_DEVICES")}


def cosine(cell: Cell) -> dict:
    import jax.numpy as jnp

    return {"cosine": jnp.cos(cell.n * jnp.linspace(0.0, 1.0, 7)).sum()}


def unkeepable(cell: Cell) -> dict:
    return {"bad": np.array([object()])} if cell.wrong else {"ok": 1}
