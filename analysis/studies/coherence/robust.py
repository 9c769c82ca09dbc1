"""Winsorized and median-of-means descent on wrong labels ("Appealing to gradients", 5.5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

import optax

from analysis.data import flip_labels
from analysis.models import MLP
from analysis.scale import Scale
from analysis.studies.images import Images, images
from analysis.sweep import Study
from analysis.training import Options, Steps, train
from igr.per_example import grouped_gradients, per_example_gradients
from igr.transforms import median_of_means_sgd, winsorized_sgd

Rule = Literal["winsorized", "median of means"]


@dataclass(frozen=True)
class Cell:
    """One rule at one level on one part of wrong labels; all its seeds go side by side.

    Attributes:
        data: What is learned.
        rule: Which of the two.
        level: The level c of winsorization in percent, or the number k of groups of a batch.
            c = 0 and k = 1 are SGD.
        random: The part of the training labels that is replaced by any class at random.
        examples: To train on.
        width: Units of each hidden layer.
        depth: Hidden layers.
        learning_rate: The step h.
        steps: Steps of the rule.
        seeds: Of weights and batches. The wrong labels are those of seed 0.
        batch_size: Examples a step, a multiple of k.
        samples: How often losses and accuracies are taken.
    """

    data: Images
    rule: Rule
    level: int
    random: float
    examples: int = 600
    width: int = 64
    depth: int = 1
    learning_rate: float = 0.2
    steps: int = 2400
    seeds: tuple[int, ...] = (0, 1)
    batch_size: int = 15
    samples: int = 10


def study(scale: Scale) -> Study:
    """Several levels c and k on real and on half random labels, as far as the scale goes.

    Args:
        scale: "quick": digits, a small network, ten seeds. "medium": 6,000 of MNIST, fewer
            levels, three seeds, 2,000 steps. "full": all of MNIST.
    """
    levels: dict[Rule, tuple[int, ...]] = {
        "winsorized": (0, 2, 5, 10, 25),
        "median of means": (1, 3, 5, 15),
    }
    if scale == "medium":
        levels = {"winsorized": (0, 5, 25), "median of means": (1, 3, 15)}
    seeds = (0, 1, 2, 3, 4)

    def cell(rule: Rule, level: int, random: float) -> Cell:
        if scale == "quick":
            return Cell("digits", rule, level, random, seeds=tuple(range(10)))
        if scale == "medium":
            return Cell("mnist", rule, level, random, 6000, 100, 2, 0.1, 2000, seeds[:3], 30)
        return Cell("mnist", rule, level, random, 60_000, 256, 3, 0.1, 200_000, seeds, 30)

    cells = [
        cell(rule, level, random)
        for rule, several in levels.items()
        for level in several
        for random in (0.0, 0.5)
    ]
    return Study("coherence-robust", run, tuple(cells))


def run(cell: Cell) -> Mapping[str, Any]:
    """Losses and accuracies of each run while it trains.

    Returns:
        What `Runs.arrays` has; axes are rate (one), seed, sample. Training accuracy counts the
        labels as they are given, wrong ones too. Beside it where the data are from.
    """
    data = flip_labels(images(cell.data).first(cell.examples), cell.random, seed=0, to="any")
    make_optimizer, gradient = _rule(cell.rule, cell.level)
    runs = train(
        _network(data.train.x[0].size, data.train.num_classes, cell.width, cell.depth),
        make_optimizer,
        data,
        grid={"learning_rate": (cell.learning_rate,)},
        seeds=cell.seeds,
        stop=Steps(cell.steps),
        options=Options(
            batch_size=cell.batch_size,
            samples=cell.samples,
            gradient=gradient,
        ),
    )
    return {**runs.arrays(), "source": runs.source}


@cache  # the same functions for the same level: its cells share the compiled program
def _rule(rule: Rule, level: int) -> tuple[Callable[..., optax.GradientTransformation], Any]:
    if rule == "winsorized":
        return lambda settings: winsorized_sgd(settings["learning_rate"], level), (
            per_example_gradients
        )
    return lambda settings: median_of_means_sgd(settings["learning_rate"], level), (
        partial(grouped_gradients, num_groups=level)
    )


@cache
def _network(inputs: int, classes: int, width: int, depth: int) -> Callable[..., MLP]:
    return lambda key: MLP(inputs, classes, width, depth, key=key)
