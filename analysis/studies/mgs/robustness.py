"""Five things that control training, changed one at a time, by regularizer (MGS, Figure 4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis.scale import Scale
from analysis.studies.mgs import label_noise
from analysis.studies.mgs.label_noise import FACTORS, FEW
from analysis.sweep import Study

# What is changed: the field of `label_noise.Cell`.
CHANGES = ("examples", "noises", "batch_size", "learning_rate", "epochs")


@dataclass(frozen=True)
class Cell:
    """One regularizer, its factor chosen where nothing is changed, and one thing changed.

    Attributes:
        start: Where nothing is changed; `noises` holds a single level.
        changed: One of `CHANGES`.
        values: What it is changed to.
    """

    start: label_noise.Cell
    changed: str
    values: tuple[float, ...]


def study(scale: Scale) -> Study:
    """The robustness of Szolnoky et al. (2022), section 6.3 and appendix D.1.

    Factors are chosen there with 3,000 examples of which half have wrong labels, in 100 epochs, by
    the validation loss. The text names the five things that are changed, "both larger and smaller",
    and not the values, which are ours.

    Args:
        scale: "quick": digits, a small MLP, 384 examples. "medium" and "full": LeNet-5 on blurred
            MNIST; at "medium" with 500 examples in 25 epochs, two values of each thing, three
            draws, three factors.
    """
    values: dict[str, tuple[float, ...]] = {
        "examples": (500, 1000, 6000, 9000),
        "noises": (0.0, 0.2, 0.7, 0.8),
        "batch_size": (8, 16, 64, 128),
        "learning_rate": (0.02, 0.05, 0.2, 0.5),
        "epochs": (25, 50, 200, 400),
    }
    if scale == "quick":
        values = {"examples": (96, 768), "noises": (0.2, 0.7), "batch_size": (16, 64),
                  "learning_rate": (0.03, 0.3), "epochs": (25, 200)}  # fmt: skip
    if scale == "medium":
        values = {"examples": (250, 1000), "noises": (0.2, 0.7), "batch_size": (16, 64),
                  "learning_rate": (0.05, 0.2), "epochs": (12, 50)}  # fmt: skip
    sizes: dict[str, Any] = {
        "quick": {"data": "digits", "examples": 384, "draws": 2, "tuning_draws": 1},
        "medium": {"data": "blurred mnist", "draws": 3, "tuning_draws": 1, "examples": 500,
                   "epochs": 25, "tuning_epochs": 25, "probes": 1},
        "full": {"data": "blurred mnist", "draws": 5, "tuning_draws": 5},
    }[scale]  # fmt: skip
    factors = FEW if scale == "medium" else FACTORS[sizes["data"]]
    return Study(
        "mgs-robustness",
        run,
        tuple(
            Cell(_start(method, factors[method], sizes), name, several)
            for method in factors
            for name, several in values.items()
        ),
        cost=_cost,
    )


def run(cell: Cell) -> Mapping[str, Any]:
    """The final test accuracy at each value.

    Returns:
        `accuracy`, of axes value and draw, the mean of the last samples; the `factor` chosen; and
        where the data are from.
    """
    start = cell.start
    factor, _ = label_noise.chosen(start)
    parts = label_noise.parts(start.data)
    found = np.zeros((len(cell.values), start.draws))
    for i, value in enumerate(cell.values):
        new = (value,) if cell.changed == "noises" else value
        one = replace(start, **{cell.changed: new})
        for draw in range(start.draws):
            data = parts.sample(one.examples, one.noises[0], draw)
            samples = label_noise.taken(one, data)
            runs = label_noise.trained(one, (factor,), data, draw, one.epochs, samples)
            last = runs.last_mean("test_accuracy", label_noise.LAST)
            found[i, draw] = np.asarray(last).item()
    return {"accuracy": found, "factor": factor, "source": parts.source}


def _start(
    method: label_noise.Method, factors: tuple[float, ...], sizes: Mapping[str, Any]
) -> label_noise.Cell:
    usual: dict[str, Any] = {
        "examples": 3000,
        "epochs": 100,
        "tuning_epochs": 100,
        "noises": (0.5,),
        "every": 100,
    }
    given = usual | dict(sizes)
    return label_noise.Cell(
        method=method, factors=factors, tuning_examples=given["examples"], **given
    )


def _cost(cell: Cell) -> float:
    return {"MGS": 5.0, "loss gradient": 2.0}.get(cell.start.method, 1.0)
