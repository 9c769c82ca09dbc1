"""What drawing every figure has to compute first, and about how long that takes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass
from math import prod
from typing import Any

from analysis.command import duration
from analysis.scale import Conditions
from analysis.studies import STUDIES, seconds, study
from analysis.sweep import missing, visible_gpus


@dataclass(frozen=True)
class Planned:
    """What a study still has to compute.

    Attributes:
        name: The study.
        cells: How many it has.
        missing: How many of them have no result yet.
        seconds: What those take on two cores, all cells of a study alike; None where it is not
            known.
        steps: How many steps of training those have, as far as their fields say.
    """

    name: str
    cells: int
    missing: int
    seconds: float | None
    steps: int = 0


def plan(conditions: Conditions, names: Iterable[str] | None = None) -> tuple[Planned, ...]:
    """Studies with what they still have to compute, the dearest first; all, if none are named."""
    found = []
    for name in STUDIES if names is None else names:
        whole = study(name, conditions.scale)
        left, cells = missing(whole, conditions.results), len(set(whole.cells))
        known = seconds(name, conditions.scale)
        takes = None if known is None else known * len(left) / cells
        steps = sum(training_steps(cell) for cell in left)
        found.append(Planned(name, cells, len(left), takes, steps))
    return tuple(sorted(found, key=lambda one: (-(one.seconds or 0), -one.steps, -one.missing)))


def training_steps(cell: Any) -> int:
    """How many steps of training a cell has, over all its runs, as far as its fields say.

    Steps, or epochs times batches an epoch, times each of the settings, seeds and draws; the
    choosing of factors and what is measured are not counted.

    >>> from dataclasses import make_dataclass
    >>> Cell = make_dataclass("Cell", ["steps", "seeds", "learning_rates"])
    >>> training_steps(Cell(1000, (0, 1, 2), (0.1, 0.2)))
    6000
    """
    given = {field.name: getattr(cell, field.name) for field in fields(cell)}
    inner = [value for value in given.values() if is_dataclass(value)]
    steps = given.get("steps", 0)
    if not steps and isinstance(given.get("epochs"), int):
        steps = given["epochs"] * ((given.get("examples") or 0) // given.get("batch_size", 1))
    steps = steps or sum(training_steps(one) for one in inner)
    runs = [len(v) for k, v in given.items() if k in _RUNS and isinstance(v, tuple)]
    draws = 1 if "seeds" in given else given.get("draws", 1)  # else they are of something else
    return int(steps) * prod(runs) * int(draws)


# Fields that hold a setting a run.
_RUNS = frozenset((
    "seeds", "learning_rates", "rates", "noises", "weights", "decays", "confidences", "values",
    "mus",
))  # fmt: skip


def described(planned: tuple[Planned, ...]) -> str:
    """A plan as a few lines: how much there is to do, and what of it takes longest.

    >>> print(described((Planned("long", 4, 2, 120.0), Planned("done", 3, 0, 0.0))))
    2 of 7 cells of 2 studies are to be computed, about 2 min on two cores; the longest: long 2 min
    >>> print(described((Planned("long", 4, 2, 120.0), Planned("large", 3, 3, None, 2_500_000))))
    5 of 7 cells of 2 studies are to be computed, about 2 min on two cores; the longest: long 2 min
    and 1 study of which no time is known, of 2.5 million steps of training: large 2.5
    """
    left, cells = sum(one.missing for one in planned), sum(one.cells for one in planned)
    text = f"{left} of {cells} cells of {_studies(len(planned))} are to be computed"
    known = [one for one in planned if one.missing and one.seconds is not None]
    unknown = [one for one in planned if one.missing and one.seconds is None]
    if known:
        longest = ", ".join(f"{one.name} {duration(one.seconds)}" for one in known[:5])
        total = duration(sum(one.seconds or 0 for one in known))
        text += f", about {total} on two cores; the longest: {longest}"
    if not unknown:
        return text
    millions = {one.name: one.steps / 1e6 for one in unknown}
    most = ", ".join(f"{name} {number:.1f}" for name, number in list(millions.items())[:5])
    return (
        f"{text}\nand {_studies(len(unknown))} of which no time is known, of "
        f"{sum(millions.values()):.1f} million steps of training: {most}"
    )


def gpus_used(conditions: Conditions) -> str:
    """A line on how many GPUs studies are computed on."""
    if conditions.engine == "ray":
        return "GPUs: those of the Ray cluster, a cell on each"
    number = len(visible_gpus())
    return f"GPUs: {number}, a cell on each" if number > 1 else f"GPUs: {number or 'none'}"


def _studies(number: int) -> str:
    return f"{number} {'study' if number == 1 else 'studies'}"
