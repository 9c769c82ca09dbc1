"""What drawing every figure has to compute first, and about how long that takes."""

from __future__ import annotations

from dataclasses import dataclass

from analysis.command import duration
from analysis.scale import Conditions
from analysis.studies import SECONDS, STUDIES, study
from analysis.sweep import missing


@dataclass(frozen=True)
class Planned:
    """What a study still has to compute.

    Attributes:
        name: The study.
        cells: How many it has.
        missing: How many of them have no result yet.
        seconds: What those take at "quick" on two cores, all cells of a study alike; None at other
            scales.
    """

    name: str
    cells: int
    missing: int
    seconds: float | None


def plan(conditions: Conditions) -> tuple[Planned, ...]:
    """Every study with what it still has to compute, the dearest first."""
    found = []
    for name in STUDIES:
        whole = study(name, conditions.scale)
        cells, left = len(set(whole.cells)), len(missing(whole, conditions.results))
        seconds = SECONDS[name] * left / cells if conditions.scale == "quick" else None
        found.append(Planned(name, cells, left, seconds))
    return tuple(sorted(found, key=lambda one: (-(one.seconds or 0), -one.missing)))


def described(planned: tuple[Planned, ...]) -> str:
    """A plan as a few lines: how much there is to do, and what of it takes longest.

    >>> print(described((Planned("long", 4, 2, 120.0), Planned("done", 3, 0, 0.0))))
    2 of 7 cells of 2 studies are to be computed, about 2 min on two cores; the longest: long 2 min
    """
    left, cells = sum(one.missing for one in planned), sum(one.cells for one in planned)
    text = f"{left} of {cells} cells of {len(planned)} studies are to be computed"
    seconds = [one.seconds for one in planned if one.seconds is not None]
    if not left or len(seconds) < len(planned):
        return text
    longest = ", ".join(f"{p.name} {duration(p.seconds)}" for p in planned[:5] if p.missing)
    return f"{text}, about {duration(sum(seconds))} on two cores; the longest: {longest}"
