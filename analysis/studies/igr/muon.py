"""Muon on real data beside the flows of order 0 and 1, over step and memory (ours)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import optax

import igr
from analysis.models.tanh_network import cross_entropy, tanh_network
from analysis.scale import Scale
from analysis.studies.igr.compared import compared, first_digits
from analysis.studies.igr.follow import arrays_of
from analysis.sweep import Study

BETAS = (0.5, 0.9, 0.95)
LEARNING_RATES = (5e-4, 1e-3, 2e-3, 4e-3)  # beyond, it is at a minimum before memories fill


@dataclass(frozen=True)
class Cell:
    """One step and one memory.

    Attributes:
        beta: Of the average of a matrix's gradients.
        learning_rate: The step h.
        burn_in: Steps before the flows start beside it.
        steps: Steps after these.
        record_every: Steps from record to record.
        examples: Digits, from the first on.
        seed: Of the weights.
    """

    beta: float
    learning_rate: float
    burn_in: int = 100
    steps: int = 20
    record_every: int = 5
    examples: int = 200
    seed: int = 0


def study(scale: Scale) -> Study:
    """Three memories at four steps, in double precision.

    Args:
        scale: The same cells at every scale: distances as small as these need no larger network.
    """
    del scale
    cells = tuple(Cell(beta, h) for beta in BETAS for h in LEARNING_RATES)
    return Study("igr-muon", run, cells)


@jax.enable_x64(True)
def run(cell: Cell) -> Mapping[str, Any]:
    """How far Muon, as optax runs it, drifts from its flows: what `arrays_of` has."""
    some = first_digits(cell.examples)
    seen = compared(
        cross_entropy(some),
        tanh_network(some, jax.random.key(cell.seed)),
        cell.learning_rate,
        cell.steps,
        (0, 1),
        igr.flows.rules.muon(cell.beta),
        optimizer=optax.contrib.muon(cell.learning_rate, beta=cell.beta),
        burn_in=cell.burn_in,
        record_every=cell.record_every,
        rtol=1e-7,
        sharpness=False,
    )
    return arrays_of(seen) | {"source": "scikit-learn's digits"}
