"""What training gives: every metric of every run at every sample, and the models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Bool, Float, Int, PyTree


@dataclass(frozen=True)
class Runs:
    """A grid of runs. Every array starts with the grid's axes in their order, then the seeds.

    Attributes:
        settings: The values along each axis of the grid.
        seeds: The values along the axis of seeds.
        step: The steps done at each sample; no axis of seeds.
        metrics: By name; the axis after the seeds is that of samples. NaN after a run has stopped.
        kept: The sample whose model is kept: the last, or the one of maximum test accuracy.
        model: The kept models, their arrays with the leading axes.
        state: The states of networks that have one, else None.
        source: What was trained on.
    """

    settings: Mapping[str, tuple[float, ...]]
    seeds: tuple[int, ...]
    step: Int[np.ndarray, "*grid samples"]
    metrics: Mapping[str, np.ndarray]
    kept: Int[np.ndarray, "*grid seeds"]
    model: PyTree
    state: PyTree
    source: str

    def __getitem__(self, name: str) -> np.ndarray:
        """A metric."""
        if name not in self.metrics:
            raise KeyError(f"{name!r}; recorded were {', '.join(sorted(self.metrics))}")
        return self.metrics[name]

    def at(self, name: str, sample: Int[np.ndarray, "*grid seeds"]) -> np.ndarray:
        """A metric of each run at a sample of its own; NaN where the sample is -1."""
        values, axis = self[name].astype(float), len(self.settings) + 1
        index = np.expand_dims(sample, tuple(range(axis, values.ndim)))
        found = np.take_along_axis(values, np.maximum(index, 0), axis).squeeze(axis)
        missing = np.expand_dims(sample < 0, tuple(range(axis, found.ndim)))
        return np.where(missing, np.nan, found)

    def at_max(self, name: str) -> Int[np.ndarray, "*grid seeds"]:
        """The first sample at which a metric is largest, for each run; -1 where it is all NaN."""
        values = self[name]
        known = ~np.isnan(values)
        best = np.argmax(np.where(known, values, -np.inf), axis=-1)
        return np.where(known.any(axis=-1), best, -1)

    def first_below(self, name: str, level: float) -> Int[np.ndarray, "*grid seeds"]:
        """The first sample at which a metric is at most `level`, for each run; -1 where none is."""
        below: Bool[np.ndarray, ...] = self[name] <= level
        return np.where(below.any(axis=-1), np.argmax(below, axis=-1), -1)

    def last_mean(self, name: str, samples: int = 5) -> Float[np.ndarray, "*grid seeds"]:
        """The mean of a metric over each run's last samples."""
        if not 1 <= samples <= self.step.shape[-1]:
            raise ValueError(f"samples must be from 1 to {self.step.shape[-1]}; got {samples}")
        axis = len(self.settings) + 1
        return np.take(self[name], np.arange(-samples, 0), axis).mean(axis=axis)

    def model_of(self, *index: int) -> Any:
        """The kept model of one run: an index a setting, then that of the seed."""
        if len(index) != len(self.settings) + 1:
            raise ValueError(f"an index for each of {(*self.settings, 'seed')}; got {index}.")
        return jax.tree.map(lambda v: v[index] if eqx.is_array(v) else v, self.model)

    def arrays(self) -> dict[str, np.ndarray]:
        """The steps, the metrics and `kept`: what a cell of a study returns."""
        return {"step": self.step, "kept": self.kept, **self.metrics}
