"""What a benchmark reports, and how it takes time.

A module of this folder that has `rows()` is a benchmark. A row is a `Row`, or a plain tuple of the
same fields.
"""

from __future__ import annotations

import operator
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

_COMPARISONS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}


@dataclass(frozen=True)
class Row:
    """One measured number beside its target.

    Attributes:
      name: what was measured.
      measured: the number.
      unit: of the number; for a ratio, what it is a multiple of.
      target: such as `<= 3.5`; empty where there is none.
      took: the seconds from the row before to this one, where that was measured.

    >>> Row("order 1", 3.1, "gradients", "<= 3.5").met
    True
    """

    name: str
    measured: float
    unit: str
    target: str = ""
    took: float | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        """A number of numpy or JAX becomes a plain one, which JSON can hold."""
        object.__setattr__(self, "measured", float(self.measured))

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        if not self.target:
            return None
        comparison, _, bound = self.target.partition(" ")
        if comparison not in _COMPARISONS:
            raise ValueError(
                f"target must be {', '.join(_COMPARISONS)} and a number, such as '<= 3.5'; got "
                f"{self.target!r}."
            )
        return bool(_COMPARISONS[comparison](self.measured, float(bound)))


def median_seconds(
    work: Mapping[str, Callable[[], Any]],
    repeats: int,
    settle: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """The median time of each piece of work, after one run to warm up.

    They run in turn, one after the other in every round, so that all see the same machine. Work
    returns what it computed on a device: the clock stops when that is there.

    Args:
      work: by name.
      repeats: how many rounds, at least 1.
      settle: run each piece once more in every round before the clock starts. Short work after
        long work is otherwise charged for caches that its predecessor filled: half as much again
        was seen for a gradient after a field of order 4.
      clock: `time.process_time` for the time on all cores, whatever else the machine does.
    """
    import jax  # the derivation is measured without it

    times: dict[str, list[float]] = {name: [] for name in work}
    for run in work.values():
        jax.block_until_ready(run())
    for _ in range(repeats):
        for name, run in work.items():
            if settle:
                jax.block_until_ready(run())
            start = clock()
            jax.block_until_ready(run())
            times[name].append(clock() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}
