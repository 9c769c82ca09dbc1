"""Coherence while a network learns real and random labels ("Appealing to gradients", section 5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import jax
import numpy as np

from analysis.data import flip_labels
from analysis.models import MLP
from analysis.scale import Scale
from analysis.studies.images import Images, images
from analysis.studies.optimizers import sgd
from analysis.sweep import Study
from analysis.training import At, Options, Steps, train
from igr.diagnostics import coherence, coherence_from_batches
from igr.per_example import grouped_gradients


@dataclass(frozen=True)
class Cell:
    """One part of random labels; all its seeds go side by side.

    Attributes:
        data: What is learned.
        random: The part of the training labels that is replaced by any class at random.
        examples: To train on.
        width: Units of each hidden layer.
        depth: Hidden layers.
        learning_rate: The rate of SGD.
        steps: Steps of SGD.
        samples: About how many samples, evenly spaced in the logarithm of the step.
        seeds: Of weights and batches. The wrong labels are those of seed 0.
        batch_size: Examples a step, and a batch of the estimate from batches.
    """

    data: Images
    random: float
    examples: int = 1200
    width: int = 100
    depth: int = 2
    learning_rate: float = 0.1
    steps: int = 8000
    samples: int = 30
    seeds: tuple[int, ...] = (0, 1, 2)
    batch_size: int = 40


def study(scale: Scale) -> Study:
    """Real, half random and random labels, and what is between, as far as the scale goes.

    Args:
        scale: "quick": digits, a small network, ten seeds. "medium": 6,000 of MNIST.
            "full": all of MNIST.
    """
    parts = (0.0, 0.25, 0.5, 0.75, 1.0)
    cells = {
        "quick": [Cell("digits", part, seeds=tuple(range(10))) for part in parts],
        "medium": [Cell("mnist", part, 6000, 200, 3, steps=40_000) for part in parts],
        "full": [
            Cell("mnist", part, 60_000, 400, 5, 0.05, 900_000, 60, (0, 1, 2, 3, 4), 100)
            for part in parts
        ],
    }[scale]
    return Study("coherence-training", run, tuple(cells))


def run(cell: Cell) -> Mapping[str, Any]:
    """Losses, accuracies and coherence of each run while it trains.

    Returns:
        What `Runs.arrays` has, with `helped`, the coherence over its orthogonal limit of all
        training examples, and `from_batches`, the same estimated from batches (section 5.4); axes
        are rate (one), seed, sample. Beside it where the data are from.
    """
    data = flip_labels(images(cell.data).first(cell.examples), cell.random, seed=0, to="any")
    make = partial(MLP, data.train.x[0].size, data.train.num_classes, cell.width, cell.depth)
    first = np.geomspace(1, cell.steps, cell.samples).round().astype(int)
    runs = train(
        lambda key: make(key=key),
        sgd,
        data,
        grid={"learning_rate": (cell.learning_rate,)},
        seeds=cell.seeds,
        stop=Steps(cell.steps),
        options=Options(
            batch_size=cell.batch_size,
            samples=[0, *np.unique(first).tolist()],
            metrics={"helped": _helped, "from_batches": _from_batches(cell.batch_size)},
        ),
    )
    return {**runs.arrays(), "source": runs.source}


def _helped(at: At) -> jax.Array:
    return coherence(at.example_loss_fn, at.params, (at.x, at.y)).helped


@cache  # one function a size: cells of a size share the compiled program
def _from_batches(size: int) -> Any:
    def helped(at: At) -> jax.Array:
        number = len(at.y) // size
        order = jax.random.permutation(at.key, len(at.y))[: number * size]
        batch = (at.x[order], at.y[order])
        gradients = grouped_gradients(at.example_loss_fn, at.params, batch, number)
        return len(at.y) * coherence_from_batches(gradients, size, finite_sample=True).alpha

    return helped
