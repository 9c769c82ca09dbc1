"""How large studies are, who computes them, and where their results are kept."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from analysis.sweep import Engine

Scale = Literal["quick", "medium", "full"]


@dataclass(frozen=True)
class Conditions:
    """Under which conditions studies are run.

    Attributes:
        scale: "quick": minutes on two cores, on the data that come with scikit-learn. "medium":
            MNIST-size on a CPU, hours. "full": as in the papers, on a GPU.
        engine: As in `analysis.sweep.sweep`.
        results: The folder of all results.
        committed: Whether those are results that were written to be kept (`analysis.sweep.keep`),
            of whatever code, to which nothing is added.
        told: Called with a study's name, how many of its cells are computed and how many there are
            to compute, instead of progress on standard error.

    Raises:
        ValueError: If the scale or the engine is unknown.
    """

    scale: Scale = "quick"
    engine: Engine = "local"
    results: Path = Path("results")
    committed: bool = False
    told: Callable[[str, int, int], None] | None = None

    def __post_init__(self):
        for name, value, known in (
            ("scale", self.scale, get_args(Scale)),
            ("engine", self.engine, get_args(Engine)),
        ):
            if value not in known:
                raise ValueError(f"{name} must be {', '.join(known)}; got {value!r}")


def conditions() -> Conditions:
    """The conditions of the environment: `IGR_SCALE`, `IGR_ENGINE`, `IGR_RESULTS`, or defaults.

    Raises:
        ValueError: If a variable holds something unknown.
    """
    usual = Conditions()
    return Conditions(
        os.environ.get("IGR_SCALE", usual.scale),  # pyright: ignore[reportArgumentType]
        os.environ.get("IGR_ENGINE", usual.engine),  # pyright: ignore[reportArgumentType]
        Path(os.environ.get("IGR_RESULTS", usual.results)),
    )
