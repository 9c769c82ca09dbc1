"""MLPs of several widths trained by SGD at several learning rates (Figures 2a, 2b)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from analysis.models import MLP, num_parameters
from analysis.scale import Scale
from analysis.studies.images import Images, images
from analysis.studies.measures import norm, regularizer, regularizer_of_test
from analysis.studies.optimizers import sgd
from analysis.sweep import Study
from analysis.training import MaxTestAccuracy, Options, train


@dataclass(frozen=True)
class Cell:
    """One width; all its rates and seeds go side by side.

    Attributes:
        data: What is learned.
        width: Units of each hidden layer.
        learning_rates: The rates h.
        seeds: Of weights and batches.
        steps: Steps of SGD.
        samples: How often R and the accuracies are taken.
        depth: Hidden layers.
        batch_size: Examples a step.
    """

    data: Images
    width: int
    learning_rates: tuple[float, ...]
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    steps: int = 6000
    samples: int = 60
    depth: int = 5
    batch_size: int = 32


def study(scale: Scale) -> Study:
    """The widths and rates of Barrett and Dherin (2021), section 6, as far as the scale goes.

    Args:
        scale: "quick": digits, three widths, five rates. "medium": 10,000 of MNIST, three of the
            paper's widths and three of its rates, with one between, at which so few steps fit all
            examples. "full": MNIST and the paper's own six widths and seven rates.
    """
    wide = (0.5, 0.1, 0.05, 0.01, 0.005, 0.001, 0.0005)
    cells = {
        "quick": [Cell("digits", width, (0.5, 0.2, 0.1, 0.05, 0.02)) for width in (50, 100, 200)],
        "medium": [
            Cell("10,000 of mnist", width, (0.5, 0.2, 0.1, 0.05), (0, 1, 2), 15_000, 30)
            for width in (50, 100, 200)
        ],
        "full": [
            Cell("mnist", width, wide, steps=250_000, samples=250)
            for width in (50, 100, 200, 400, 800, 1600)
        ],
    }[scale]
    return Study("igr-width-and-rate", run, tuple(cells), cost=lambda cell: cell.width**2)


def run(cell: Cell) -> Mapping[str, Any]:
    """R_IG = |grad E|^2 / m, the losses and the accuracies of each run while it trains.

    Returns:
        What `Runs.arrays` has, with `R`, `test_R` (of the test loss) and `norm`, the Euclidean norm
        of the parameters; axes are rate, seed, sample. Beside it the number of parameters, the
        rates, and where the data are from.
    """
    data = images(cell.data)
    make = partial(MLP, data.train.x[0].size, data.train.num_classes, cell.width, cell.depth)
    runs = train(
        lambda key: make(key=key),
        sgd,
        data,
        grid={"learning_rate": cell.learning_rates},
        seeds=cell.seeds,
        stop=MaxTestAccuracy(cell.steps),
        options=Options(
            batch_size=cell.batch_size,
            samples=cell.samples,
            metrics={"R": regularizer, "test_R": regularizer_of_test, "norm": norm},
        ),
    )
    return {
        **runs.arrays(),
        "learning_rates": np.array(cell.learning_rates),
        "parameters": num_parameters(runs.model_of(0, 0)),
        "source": runs.source,
    }
