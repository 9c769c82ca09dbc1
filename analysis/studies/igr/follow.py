"""A tanh network on digits: gradient descent and the flows of order 0, 1 and 2 beside it (ours)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

import igr
from analysis.data import digits
from analysis.models.tanh_network import cross_entropy, tanh_network
from analysis.scale import Scale
from analysis.sweep import Study


@dataclass(frozen=True)
class Cell:
    """One learning rate.

    Attributes:
        learning_rate: The step h.
        time: To which the run is followed, h times its steps.
        records: How often run and flows are compared.
        orders: The powers of h to which the equation is kept, each on its own.
        seed: Of the weights.
    """

    learning_rate: float
    time: float = 30.0
    records: int = 50
    orders: tuple[int, ...] = (0, 1, 2)
    seed: int = 0


def study(scale: Scale) -> Study:
    """A small and a large rate, in double precision.

    Args:
        scale: The same cells at every scale: distances as small as these need no larger network.
    """
    del scale
    return Study("igr-follow", run, (Cell(0.05), Cell(0.2)), cost=lambda c: 1 / c.learning_rate)


@jax.enable_x64(True)
def run(cell: Cell) -> Mapping[str, Any]:
    """How far gradient descent drifts from each flow: what `arrays_of` has."""
    data = digits()
    steps = round(cell.time / cell.learning_rate)
    seen = igr.compare(
        cross_entropy(data),
        tanh_network(data, jax.random.key(cell.seed)),
        cell.learning_rate,
        steps,
        cell.orders,
        record_every=round(steps / cell.records),
    )
    return arrays_of(seen) | {"source": "scikit-learn's digits"}


def arrays_of(seen: igr.Comparison) -> dict[str, Any]:
    """A comparison as plain arrays.

    Args:
        seen: Of r records and p orders.

    Returns:
        `orders`, (p,), in order; `distance` and `at_rounding`, (p, r); and by their names in
        `igr.Comparison`, with `loss` for the value of the discrete run, the rest.
    """
    orders = sorted(seen.distance)
    along = ("step", "time", "travelled", "correction", "h_sharpness", "stability_limit", "trusted")
    return {name: np.asarray(getattr(seen, name)) for name in along} | {
        "orders": np.array(orders),
        "distance": np.stack([seen.distance[p] for p in orders]),
        "at_rounding": np.stack([seen.at_rounding[p] for p in orders]),
        "loss": np.asarray(seen.discrete.value),
    }
