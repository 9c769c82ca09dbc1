"""What claims rest on: means with standard errors, paired differences, rank correlations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.stats import rankdata

Key = TypeVar("Key")


@dataclass(frozen=True)
class Mean:
    """A mean over runs, its standard error, and how many there were.

    Attributes:
        value: The mean; NaN of none.
        error: Its standard error; 0 of fewer than two.
        number: The runs.
    """

    value: float
    error: float
    number: int

    def above(self, bound: float = 0.0) -> bool:
        """Whether the mean is above `bound` by more than two standard errors."""
        return self.value - bound > 2 * self.error

    def below(self, bound: float = 0.0) -> bool:
        """Whether the mean is below `bound` by more than two standard errors."""
        return bound - self.value > 2 * self.error

    def __format__(self, spec: str) -> str:
        """As `mean ± error`, both in the format given."""
        return f"{self.value:{spec}} ± {self.error:{spec.lstrip('+')}}"


def mean(values: ArrayLike) -> Mean:
    """The mean of numbers that are finite.

    >>> f"{mean([1.0, 3.0, float('nan')]):.1f}"
    '2.0 ± 1.0'
    """
    known = np.asarray(values, float).ravel()
    known = known[np.isfinite(known)]
    if len(known) == 0:
        return Mean(float("nan"), 0.0, 0)
    error = known.std(ddof=1) / np.sqrt(len(known)) if len(known) > 1 else 0.0
    return Mean(float(known.mean()), float(error), len(known))


def difference(first: ArrayLike, second: ArrayLike) -> Mean:
    """The mean of first - second, run by run: both of the same seeds, in the same order.

    >>> difference([2.0, 3.0, 4.0], [1.0, 2.0, 3.0])
    Mean(value=1.0, error=0.0, number=3)
    """
    return mean(np.asarray(first, float) - np.asarray(second, float))


def least(differences: Mapping[str, Mean], form: str) -> str:
    """The smallest of several differences and whose it is.

    >>> least({"a": Mean(2.0, 0.1, 3), "b": Mean(1.0, 0.2, 3)}, ".1f")
    '1.0 ± 0.2 or more (least for b)'
    """
    name = min(differences, key=lambda name: differences[name].value)
    return f"{differences[name]:{form}} or more (least for {name})"


def resampled(
    runs: Mapping[Key, np.ndarray], number: int = 2000
) -> Iterator[dict[Key, np.ndarray]]:
    """The runs of seeds or draws taken with replacement, the same ones for all.

    Args:
        runs: Arrays whose second axis is that of seeds or draws, as many in each.
        number: How often.

    >>> runs = {"a": np.array([[1.0, 2.0]]), "b": np.array([[10.0, 20.0]])}
    >>> all((one["b"] == 10 * one["a"]).all() for one in resampled(runs, 5))
    True
    """
    seeds = next(iter(runs.values())).shape[1]
    for which in np.random.default_rng(0).integers(seeds, size=(number, seeds)):
        yield {key: values[:, which] for key, values in runs.items()}


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rank correlation and the interval that holds 95 % of its bootstrap."""

    rho: float
    low: float
    high: float

    def __str__(self):
        return (
            f"Spearman {self.rho:.2f}, 95 % of the bootstrap over seeds in [{self.low:.2f}, "
            f"{self.high:.2f}]"
        )


def rank_correlation(
    x: Float[np.ndarray, " points"],
    runs: Sequence[Float[np.ndarray, " seeds"]],
    draws: int = 2000,
    seed: int = 0,
) -> RankCorrelation:
    """Of x with the means over seeds, the seeds of every point drawn anew for the interval.

    Args:
        x: A value a point.
        runs: A number a seed for each point.
        draws: How often seeds are drawn with replacement.
        seed: Of the draws.

    Raises:
        ValueError: If there are fewer than three points, which have no rank correlation.

    >>> rank_correlation(np.array([1.0, 2.0, 3.0]), [np.ones(5), np.full(5, 4.0), np.full(5, 9.0)])
    RankCorrelation(rho=1.0, low=1.0, high=1.0)
    """
    if len(x) < 3:
        raise ValueError(f"a rank correlation needs three points; got {len(x)}.")
    rng = np.random.default_rng(seed)
    means = np.array(
        [run[rng.integers(0, len(run), (draws, len(run)))].mean(axis=1) for run in runs]
    )
    drawn = spearman(x[:, None], means)
    low, high = np.percentile(drawn, [2.5, 97.5])
    rho = spearman(x[:, None], np.array([run.mean() for run in runs])[:, None])[0]
    return RankCorrelation(round(float(rho), 3), round(float(low), 3), round(float(high), 3))


def spearman(
    x: Float[np.ndarray, "points _"], y: Float[np.ndarray, "points draws"]
) -> Float[np.ndarray, " draws"]:
    """Pearson's correlation of the ranks in each column; 0 where all in one are equal.

    A single column of x is taken with every one of y.

    >>> spearman(np.array([[1.0], [2.0], [3.0]]), np.array([[1.0, 5.0], [4.0, 5.0], [9.0, 5.0]]))
    array([1., 0.])
    """
    x, y = (rankdata(v, axis=0) - (len(v) + 1) / 2 for v in (x, y))
    scale = np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))
    return np.divide((x * y).sum(axis=0), scale, out=np.zeros_like(scale), where=scale > 0)
