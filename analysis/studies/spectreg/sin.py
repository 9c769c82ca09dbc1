"""An MLP fitted to few noisy points of a sine, by SpectReg's weight (Table 7, Figure 2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax

from analysis.data import sin
from analysis.models import MLP
from analysis.scale import Scale
from analysis.sweep import Study
from analysis.training import At, Options, Steps, train
from igr.penalties import spectral_penalty

WEIGHTS = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # Table 7


@dataclass(frozen=True)
class Cell:
    """All weights and seeds on one training set.

    Attributes:
        weights: lambda, as in the paper: beside half the sum over a batch of the squared errors.
        seeds: Of the networks and of the batches.
        steps: Of Adam.
        learning_rate: Adam's.
        batch_size: Examples a step.
        width: Units of each of the hidden layers.
        depth: Hidden layers.
        data_seed: Of the training set.
    """

    weights: tuple[float, ...] = WEIGHTS
    seeds: tuple[int, ...] = (0,)
    steps: int = 10_000
    learning_rate: float = 0.01
    batch_size: int = 50
    width: int = 64
    depth: int = 5
    data_seed: int = 0


def study(scale: Scale) -> Study:
    """The experiment of Varga, Csiszarik and Zombori (2018), section 4.4 and appendix B.4.

    Args:
        scale: "quick": one seed. "medium" and "full": three and ten.
    """
    cell = {
        "quick": Cell(),
        "medium": Cell(seeds=(0, 1, 2)),
        "full": Cell(seeds=tuple(range(10))),
    }[scale]
    return Study("spectreg-sin", run, (cell,))


def run(cell: Cell) -> Mapping[str, Any]:
    """The functions learned and their errors.

    Returns:
        What `Runs.arrays` has, `test_loss` being the mean squared error on the grid; axes are
        weight, seed, sample. Beside it `function`, the outputs on the grid at every sample, the
        grid `x`, the training set `train_x`, `train_y`, and where the data are from.
    """
    data = sin(cell.data_seed)

    def penalty(at: At) -> jax.Array:
        # The engine's loss is a mean; the paper's, half a sum, is batch / 2 times as large, so
        # that its lambda is divided by that.
        scaled = at.settings["weight"] * 2 / cell.batch_size
        return scaled * spectral_penalty(at.apply_fn, at.params, at.x, at.key)

    runs = train(
        lambda key: MLP(1, 1, cell.width, cell.depth, key=key),
        lambda settings: optax.adam(settings["learning_rate"]),
        data,
        grid={"learning_rate": (cell.learning_rate,), "weight": cell.weights},
        seeds=cell.seeds,
        stop=Steps(cell.steps),
        options=Options(
            batch_size=cell.batch_size,
            samples=1,
            penalty=penalty,
            metrics={"function": lambda at: jax.vmap(at.apply_fn, (None, 0))(at.params, at.test_x)},
        ),
    )
    arrays = {name: np.asarray(value)[0] for name, value in runs.arrays().items()}
    return {
        **arrays,
        "x": data.test.x[:, 0],
        "train_x": data.train.x[:, 0],
        "train_y": data.train.y[:, 0],
        "source": runs.source,
    }
