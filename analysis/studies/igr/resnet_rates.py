"""ResNets trained at several learning rates: R, slope and accuracy (IGR, Figures A.7 and A.8)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from analysis.models import num_parameters
from analysis.scale import Scale
from analysis.studies.igr import resnet
from analysis.studies.measures import norm, regularizer
from analysis.studies.optimizers import sgd
from analysis.sweep import Study


@dataclass(frozen=True)
class Cell:
    """All learning rates of a residual network, from some seeds.

    Attributes:
        data: What is learned, as `igr-resnet` has it.
        learning_rates: The rates h.
        seeds: Of weights and batches.
        widths: Filters of the four levels.
        blocks: Blocks of a level.
        examples: To train on; None for all there are.
        batch_size: Examples a step.
        steps: Steps of SGD.
        samples: How often all is measured.
    """

    data: Literal["digits", "cifar10"]
    learning_rates: tuple[float, ...] = (0.005, 0.01, 0.05, 0.1, 0.2)
    seeds: tuple[int, ...] = (0, 1, 2)
    widths: tuple[int, ...] = (4, 8, 16, 32)
    blocks: int = 2
    examples: int | None = 400
    batch_size: int = 40
    steps: int = 400
    samples: int = 20


def study(scale: Scale) -> Study:
    """The ResNet-18 of Barrett and Dherin (2021), appendix A.5, with the paper's learning rates.

    Args:
        scale: "quick": 400 digits, a sixteenth of the filters. "medium": 4,000 images of CIFAR-10,
            a quarter of the filters. "full": all of CIFAR-10 and ResNet-18, batches of 512.
    """
    cell = {
        "quick": Cell("digits"),
        "medium": Cell("cifar10", widths=(16, 32, 64, 128), examples=4000, batch_size=64,
                       steps=2000, samples=40),
        "full": Cell("cifar10", widths=(64, 128, 256, 512), examples=None, batch_size=512,
                     steps=40_000, samples=100),
    }[scale]  # fmt: skip
    return Study("igr-resnet-rates", run, (cell,))


def run(cell: Cell) -> Mapping[str, Any]:
    """What is measured of each run while it trains.

    Returns:
        What `Runs.arrays` has; axes are rate, seed, sample. Among it `R`, |grad E|^2 / m of the
        training loss as the trained network has it, with the running means and variances; and
        `norm`, that of the parameters. Beside it the number of `parameters`.
    """
    fields = dataclasses.asdict(cell)
    rates = fields.pop("learning_rates")
    alike = resnet.Cell(**fields, rates=())
    runs = resnet.trained(
        alike,
        resnet.images(alike),
        sgd,
        {"learning_rate": rates},
        metrics={"R": regularizer, "norm": norm},
    )
    parameters = num_parameters(runs.model_of(0, 0))
    return {**runs.arrays(), "parameters": parameters, "source": runs.source}
