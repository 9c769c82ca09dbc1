"""The result of a comparison: a run, its flows, and measures of how far to trust them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import PyTree

from igr.checks import Number
from igr.flows.comparison import report, saved
from igr.flows.run import Trajectory

FlowName = int | str  # an order; or "differences", "two-phase" or "central"

LARGEST_REMAINDER = 0.5  # of a change of the gradient, beyond which its derivatives say too little
LARGEST_CORRECTION = 0.3  # h |F1| / |F0| beyond which a truncated expansion is not to be trusted
EDGE_OF_STABILITY = 0.9  # of the stability limit, about which the sharpness then hovers


@dataclass(frozen=True, repr=False)
class Comparison:
    """A discrete run and the flows of its modified equation, at r recorded steps.

    Attributes that belong to flows are dictionaries, keyed by the flows' names: an order as an
    integer, or "differences", "two-phase" or "central".

    Attributes:
      method: the method's name.
      learning_rate: the step h.
      step: the steps done at each record, (r,).
      time: step * h, at which the flows are taken.
      discrete: the recorded run; over batches its params are the mean of all runs.
      flows: flow -> params of the flow at each record, with a leading axis r; inf after a flow
        has stopped, nan where it could not be followed at all.
      kept: flow -> the states kept beside params, by name, at each record of the flow; empty
        where the method keeps none.
      distance: flow -> Euclidean distance of run and flow at each record, (r,).
      travelled: Euclidean distance of the run from its start, (r,).
      correction: h |F1| / |F0| at the run's params, (r,).
      sharpness: the Hessian's eigenvalue of largest magnitude at the run's params, (r,); for an
        elementwise method that of the Hessian preconditioned as the method does it, by
        1/(sqrt(nu) + eps) for Adam; for SGD in epochs the batch sharpness, the mean over batches
        of g_b' H_b g_b / |g_b|^2. nan if it was not asked for, or has no meaning.
      stability_limit: h * sharpness beyond which the method diverges on a quadratic.
      convergence_radius: h * sharpness up to which the expansion converges on a quadratic. Past
        it a mode oscillates: its share of the motion shows in `correction` until it has died out.
      remainder: how much of the change of the gradient over the run's next step the Hessian does
        not explain, (r,): near 0 where the loss is smooth, near 1 where the step crosses kinks, as
        those of a ReLU network, which no derivative sees. nan where it has no meaning.
      trusted: where the expansion is to be trusted, (r,): the correction is at most 0.3, the
        remainder at most 0.5, h * |sharpness| below nine tenths of the stability limit, where the
        edge of stability begins, and the flow of order 1 has not left the run. Nowhere if the
        remainder was not measured, as that of runs on batches whose equation knows no batches, or
        if the run did not move; and not where the run itself is no longer finite.
      solver_error: flow -> the sum of the solver's own estimates of its error, over the flow; nan
        where its steps are fixed.
      floor: the distance that rounding and the solver's tolerance alone can make, (r,).
      start_up: how the comparison treats the first steps, before the memory has filled, in words.
      runs: the number of runs that are averaged; 1 for a run on the whole loss.
      standard_error: flow -> the standard error of its distance, (r,), from the spread of the runs;
        empty for a single run.
      midpoints: the midpoints (w[n-1] + 2 w[n] + w[n+1])/4 of the run at each record, from which
        distances are measured if a flow past the edge of stability is asked for; else None.
      amplitude: "run" and the flows past the edge -> the size of the oscillation, (r,).
      mean_value: "run" and the same flows -> the loss averaged over the oscillation, (r,).
      eigenvalues: "run" and the same flows -> the k largest eigenvalues of the Hessian at the
        midpoint, (r, k).
      failures: flow, or measure, that failed -> the reason.
      notes: further remarks on this comparison, as texts.
    """

    method: str
    learning_rate: Number
    step: np.ndarray
    time: np.ndarray
    discrete: Trajectory
    flows: dict[FlowName, PyTree]
    distance: dict[FlowName, np.ndarray]
    travelled: np.ndarray
    correction: np.ndarray
    remainder: np.ndarray
    sharpness: np.ndarray
    stability_limit: Number
    convergence_radius: Number
    floor: np.ndarray
    start_up: str
    kept: dict[FlowName, dict[str, PyTree]]
    solver_error: dict[FlowName, Number]
    runs: int = 1
    standard_error: dict[FlowName, np.ndarray] = field(default_factory=dict)
    midpoints: PyTree | None = None
    amplitude: dict[FlowName, np.ndarray] = field(default_factory=dict)
    mean_value: dict[FlowName, np.ndarray] = field(default_factory=dict)
    eigenvalues: dict[FlowName, np.ndarray] = field(default_factory=dict)
    failures: dict[FlowName, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def h_sharpness(self) -> np.ndarray:
        """The step h times the sharpness at each record, (r,)."""
        return self.learning_rate * self.sharpness

    @property
    def trusted(self) -> np.ndarray:
        """Whether the expansion is to be trusted at each record, a boolean array (r,)."""
        return ~np.any(list(self.failed.values()), axis=0)

    @property
    def failed(self) -> dict[str, np.ndarray]:
        """Test of validity -> whether it fails at each record, (r,); what is unknown has failed."""
        edge = EDGE_OF_STABILITY * self.stability_limit
        kinks = "kinks" if np.any(np.isfinite(self.remainder)) else "kinks not measured"
        still = bool(np.all(self.travelled == 0))  # as where a schedule has ended before the first
        left = self.left(1)
        return {
            "h|F1|/|F0|": ~(self.correction <= LARGEST_CORRECTION),
            kinks: ~(self.remainder <= LARGEST_REMAINDER),
            "edge of stability": np.abs(self.h_sharpness) > edge,  # false where not measured
            "run not finite": ~np.isfinite(self.travelled),
            "no motion": np.full(self.step.shape, still),
            "order 1 has left": np.arange(self.step.size)
            >= (self.step.size if left is None else left),
        }

    def left(self, flow: FlowName) -> int | None:
        """The first record from which on a flow is further off than the run has ever travelled.

        None if it is not, or was not followed.
        """
        if flow not in self.distance or flow in self.failures:
            return None
        far = self.distance[flow] > np.maximum.accumulate(self.travelled)
        if not far[-1] or self.at_rounding[flow][-1]:
            return None
        near = np.flatnonzero(~far)
        return int(near[-1]) + 1 if near.size else 0

    @property
    def at_rounding(self) -> dict[FlowName, np.ndarray]:
        """flow -> whether its distance is within rounding and tolerance at each record, (r,)."""
        return {p: d <= self.floor for p, d in self.distance.items()}

    def plot(self, ax: Any = None) -> Any:
        """Draws the distances and returns the matplotlib Axes, see `igr.plots.comparison`."""
        from igr.plots import comparison  # matplotlib is only there with the extra `figures`

        return comparison(self, ax)

    def to_frame(self) -> Any:
        """The comparison as a pandas data frame with a row for each record; needs pandas.

        Its index is `step`, its columns `time`, `loss`, `travelled`, `correction`, `remainder`,
        `sharpness`, `trusted`, `floor`, and of each flow "distance to order 1", and the like.
        """
        import pandas as pd  # it is no dependency

        columns: dict[str, Any] = {"time": self.time, "loss": np.asarray(self.discrete.value)}
        names = ("travelled", "correction", "remainder", "sharpness", "trusted", "floor")
        columns |= {name: getattr(self, name) for name in names}
        for what, table in (
            ("distance to", self.distance),
            ("standard error of", self.standard_error),
            ("amplitude of", self.amplitude),
            ("mean loss of", self.mean_value),
        ):
            columns |= {f"{what} {report.flow_title(p)}": x for p, x in table.items()}
        for p, x in self.eigenvalues.items():
            columns |= {
                f"eigenvalue {k + 1} of {report.flow_title(p)}": x[:, k] for k in range(x.shape[1])
            }
        return pd.DataFrame(columns, index=pd.Index(self.step, name="step"))

    def save(self, path: str | os.PathLike) -> None:
        """Writes the comparison to one npz file of numpy, with its structure as JSON; no pickle.

        The file is written completely or not at all. Left out are the optimizer's state
        (`discrete.state`) and leaves of params that are neither arrays nor plain values.

        Args:
          path: the file to write; an existing one is replaced.

        Raises:
          FileNotFoundError: if there is no such folder.
          IsADirectoryError: if `path` is a folder.
        """
        saved.write(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Comparison:
        """Reads a comparison from a file that `save` wrote.

        Dictionaries, lists and tuples come back as they were, arrays as numpy's; other containers,
        such as modules and named tuples, as dictionaries by the names of their parts.

        Args:
          path: the file.

        Raises:
          FileNotFoundError: if there is no such file.
          ValueError: if it is not a saved comparison.
        """
        fields = saved.read(path)
        try:
            fields["discrete"] = Trajectory(**fields["discrete"])
            return cls(**fields)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{os.fspath(path)} is not a comparison: {error}") from error

    def __str__(self) -> str:
        return report.text(self)

    def __repr__(self) -> str:
        return report.short(self)

    def _repr_html_(self) -> str:
        return report.html(self)
