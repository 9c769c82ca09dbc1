"""DoubleBack over its weight, and the confidence penalty beside gradient penalties (SpectReg)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Array

from analysis.scale import Scale
from analysis.studies.spectreg import mnist
from analysis.studies.spectreg.mnist import PAPER_DECAY, PENALTIES, Rule
from analysis.sweep import Study
from analysis.training import At
from igr.penalties import weight_penalty


@dataclass(frozen=True)
class Cell:
    """One rule on one draw of a small training set; all its settings side by side.

    Attributes:
        small: The training, as in `spectreg-mnist`: rule, weights, weight decays, draw, tuning,
            sizes.
        confidences: Weights of the confidence penalty beside it.
        figure: What it is for: "5", or "table-3".
    """

    small: mnist.Cell
    confidences: tuple[float, ...]
    figure: str


def study(scale: Scale) -> Study:
    """Table 3 and Figure 5 of Varga, Csiszarik and Zombori (2018), section 4.3 and appendix D.

    The paper prints no weights for Table 3; here they are chosen on draws of the training set that
    are not reported. The weight decays of Figure 5 are ours.

    Args:
        scale: "quick": an MLP on 200 digits. "medium" and "full": LeNet-5 on 2,000 of MNIST; at
            "medium" one weight a penalty and two of the confidence penalty's, five weights and two
            decays for Figure 5, 400 steps.
    """
    tuned, reported = {"quick": (4, 10), "medium": (1, 3), "full": (5, 10)}[scale]
    seen = {"quick": 4, "medium": 3, "full": 10}[scale]
    weights: tuple[float, ...] = (0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
    decays = (0.0, PAPER_DECAY, 0.005)
    grids: dict[Rule, tuple[float, ...]] = {
        "baseline": (0.0,), "SpectReg": (0.01, 0.03, 0.1), "DoubleBack": (1.0, 3.0, 10.0),
    }  # fmt: skip
    confidences = (0.0, 0.1, 0.3, 1.0)
    if scale == "medium":
        weights, decays = (0.0, 3.0, 10.0, 100.0, 1000.0), decays[:2]
        confidences = (0.0, 0.3)
        grids |= {"SpectReg": (0.03,), "DoubleBack": (3.0,)}

    def small(rule: Rule, of: tuple[float, ...], by: tuple[float, ...], draw: int, tuning: bool):
        cell = mnist.Cell(rule, of, by, draw=draw, tuning=tuning)
        if scale == "quick":
            return cell
        large = replace(cell, data="mnist", per_class=200)
        return replace(large, **(mnist.MEDIUM if scale == "medium" else mnist.FULL))

    cells = [
        Cell(small("DoubleBack", weights, decays, tuned + draw, False), (0.0,), "5")
        for draw in range(seen)
    ]
    cells += [
        Cell(small(rule, of, (PAPER_DECAY,), draw, draw < tuned), confidences, "table-3")
        for rule, of in grids.items()
        for draw in range(tuned + reported)
    ]
    return Study("spectreg-combined", run, tuple(cells))


def run(cell: Cell) -> Mapping[str, Any]:
    """Accuracies and half the squared norm of all weights at the end of training.

    Returns:
        `train`, `validation` and `test`, accuracies, and `weight loss`, of axes decay, weight,
        confidence; and where the data are from.
    """
    small = cell.small
    runs = mnist.trained(
        small,
        mnist.trainable(small.data, small.width, small.dropout),
        mnist.penalty_of(PENALTIES[small.rule], confidence=True),
        more={"confidence": cell.confidences},
        metrics={"weight loss": _weight_loss},
    )
    return mnist.held_out_accuracies(runs, small.held_out) | {
        "train": np.asarray(runs["train_accuracy"])[0, ..., 0, -1],
        "weight loss": np.asarray(runs["weight loss"])[0, ..., 0, -1],
        "source": runs.source,
    }


def _weight_loss(at: At) -> Array:
    return weight_penalty(at.params, mask=mnist.is_weight)
