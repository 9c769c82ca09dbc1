"""Residual networks on small colour images with gradient penalties (SpectReg, Tables 4 and 5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int

from analysis.data import Classification, TrainTest, cifar10, textures, tiny_imagenet
from analysis.data.examples import draw_of_each_class, standardised, take
from analysis.scale import Scale
from analysis.studies.igr import resnet
from analysis.studies.optimizers import with_dropped_rate
from analysis.studies.spectreg.mnist import PENALTIES, penalty_of, sure
from analysis.sweep import Study
from analysis.training import At, Options, Steps, train

Rule = Literal["baseline", "SpectReg", "DoubleBack", "CP"]
Data = Literal["cifar10", "tiny"]


@dataclass(frozen=True)
class Cell:
    """One rule on one draw of the training set, a run a weight.

    Attributes:
        data: CIFAR-10, or TinyImageNet-200; where the files are absent, drawn textures.
        rule: The penalty.
        weights: Of the penalty, beside the mean loss of a batch.
        draw: Which training set; also the seed of network and batches.
        tuning: Whether this draw chooses the weight; it is not reported then.
        per_class: Training images of each class.
        classes: Of the drawn textures that stand in.
        pooled: Pixels along a side that are averaged into one; photographs alone are.
        widths: Filters of each level.
        blocks: Blocks of a level.
        steps: Of the optimizer; its rate is a tenth after half (a third) of them and a hundredth
            after three quarters (two thirds) on CIFAR-10 (TinyImageNet).
        batch_size: Examples a step.
        decay: Weight decay, of |W|^2 / 2.
        held_out: Examples to validate on, and at most twice as many to test on.
    """

    data: Data
    rule: Rule
    weights: tuple[float, ...]
    draw: int
    tuning: bool
    per_class: int = 20
    classes: int = 10
    pooled: int = 4
    widths: tuple[int, ...] = (8, 16, 32)
    blocks: int = 1
    steps: int = 200
    batch_size: int = 40
    decay: float = 0.003
    held_out: int = 500


def study(scale: Scale) -> Study:
    """Tables 4 and 5 of Varga, Csiszarik and Zombori (2018), sections 4.3, 4.5, appendices B, C.

    Of Table 4 the row of CIFAR-10; that of CIFAR-100 needs another file.

    Args:
        scale: "quick": 200 images averaged to 8 by 8, and 800 drawn ones of 40 classes; networks of
            a sixth to an eighth of the filters with a block a level, 200 steps. "medium": images
            of 16 by 16, a third to a quarter of the filters. "full": as in the paper.
    """
    tuned, reported = {"quick": (1, 3), "medium": (1, 3), "full": (5, 10)}[scale]
    small: dict[Rule, tuple[float, ...]] = {
        "baseline": (0.0,), "SpectReg": (0.003, 0.03), "DoubleBack": (0.1, 1.0), "CP": (0.01, 0.1),
    }  # fmt: skip
    tiny: dict[Rule, tuple[float, ...]] = {"baseline": (0.0,), "SpectReg": (0.01, 0.1)}
    cifar_size: dict[str, dict[str, Any]] = {
        "quick": {},
        "medium": {"per_class": 100, "pooled": 2, "widths": (16, 32, 64), "blocks": 2,
                   "steps": 1500, "batch_size": 128, "held_out": 500},
        "full": {"per_class": 200, "pooled": 1, "widths": (48, 96, 192), "blocks": 3,
                 "steps": 50_000, "batch_size": 128, "held_out": 3000},
    }  # fmt: skip
    tiny_size: dict[str, dict[str, Any]] = {
        "quick": {"classes": 40, "widths": (8, 16, 32, 64)},
        "medium": {"classes": 100, "per_class": 50, "pooled": 4, "widths": (16, 32, 64, 128),
                   "blocks": 2, "steps": 3000, "held_out": 2000},
        "full": {"classes": 200, "per_class": 500, "pooled": 1, "widths": (64, 128, 256, 512),
                 "blocks": 2, "steps": 117_187, "held_out": 3300},
    }  # fmt: skip
    grids: tuple[tuple[Data, dict[Rule, tuple[float, ...]], dict[str, Any]], ...] = (
        ("cifar10", small, cifar_size[scale]),
        ("tiny", tiny, {"batch_size": 64, "decay": 1e-4} | tiny_size[scale]),
    )
    return Study(
        "spectreg-images",
        run,
        tuple(
            Cell(data, rule, weights, draw, draw < tuned, **sizes)
            for data, rules, sizes in grids
            for rule, weights in rules.items()
            for draw in range(0 if len(weights) > 1 else tuned, tuned + reported)
        ),
        cost=lambda cell: 1.0 + 3.0 * len(cell.weights) * (cell.rule in PENALTIES),
    )


def run(cell: Cell) -> Mapping[str, Any]:
    """Accuracies at the end of training.

    Returns:
        By weight `validation` and `test`, accuracies, and `test_top_5`, how often the class is
        among the five of the largest outputs; and where the data are from. Penalties see a network
        that normalises by its running means and variances.
    """
    data = images(cell)
    rule = nesterov if cell.data == "cifar10" else adam
    runs = train(
        resnet.network(data.train.num_classes, 3, cell.widths, cell.blocks),
        rule(cell.steps),
        data,
        grid={
            "learning_rate": (0.1 if cell.data == "cifar10" else 0.001,),
            "decay": (cell.decay,),
            "weight": cell.weights,
        },
        seeds=(cell.draw,),
        stop=Steps(cell.steps),
        options=Options(
            batch_size=cell.batch_size,
            samples=1,
            penalty=penalty_of(sure if cell.rule == "CP" else PENALTIES[cell.rule]),
            metrics={"above": _above},
            together=1,  # with several runs side by side a convolution is one of many groups
        ),
    )
    above = np.asarray(runs["above"])[0, 0, :, 0, -1]
    validation, test = above[:, : cell.held_out], above[:, cell.held_out :]
    return {
        "validation": (validation == 0).mean(-1),
        "test": (test == 0).mean(-1),
        "test_top_5": (test < 5).mean(-1),
        "source": f"{runs.source}, {data.train.x.shape[-1]} by {data.train.x.shape[-1]}",
    }


def images(cell: Cell) -> TrainTest[Classification]:
    """A training set, standardised; to look at, what validates and after it what tests."""
    pool, held_out, source = _pool(cell)
    drawn = draw_of_each_class(pool, cell.per_class, cell.draw)
    return TrainTest(*standardised(drawn, held_out), source)


def _pool(cell: Cell) -> tuple[Classification, Classification, str]:
    """What training sets are drawn from, and what validates and tests: the same for all draws."""
    try:
        found = _read(cell.data, cell.pooled)
    except FileNotFoundError:
        per_class = cell.held_out // cell.classes + 1
        found = textures(cell.classes, 2 * cell.per_class, 3 * per_class)
    order = np.random.default_rng(0).permutation(len(found.test))
    return found.train, take(found.test, order[: 3 * cell.held_out]), found.source


@cache
def _read(name: Data, pooled: int) -> TrainTest[Classification]:
    found = cifar10() if name == "cifar10" else tiny_imagenet()
    train, test = (replace(part, x=averaged(part.x, pooled)) for part in (found.train, found.test))
    return TrainTest(train, test, found.source)


def averaged(images: np.ndarray, size: int) -> np.ndarray:
    """Images with squares of pixels averaged into one.

    >>> averaged(np.arange(4.0).reshape(1, 1, 2, 2), 2)
    array([[[[1.5]]]])
    """
    number, channels, height, width = images.shape
    squares = images.reshape(number, channels, height // size, size, width // size, size)
    return squares.mean(axis=(3, 5))


def _above(at: At) -> Int[Array, " examples"]:
    """For each held-out example how many outputs are above that of its class."""

    def one(example: tuple[Array, Array]) -> Array:
        x, y = example
        outputs = at.apply_fn(at.params, x)
        return jnp.sum(outputs > outputs[y])

    return jax.lax.map(one, (at.test_x, at.test_y), batch_size=500)


# The same functions for equal arguments, so that draws share what is compiled.


@cache
def nesterov(steps: int) -> Callable[..., optax.GradientTransformation]:
    """Nesterov's momentum 0.9, its rate divided by ten at half and three quarters of the steps."""
    return with_dropped_rate(optax.trace(0.9, nesterov=True), steps // 2, 3 * steps // 4)


@cache
def adam(steps: int) -> Callable[..., optax.GradientTransformation]:
    """Adam, its rate divided by ten at a third and two thirds of the steps."""
    return with_dropped_rate(optax.scale_by_adam(), steps // 3, 2 * steps // 3)
