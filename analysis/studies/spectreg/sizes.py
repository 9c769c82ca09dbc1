"""Penalties over the size of the training set (SpectReg, Figure 1)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from analysis.scale import Scale
from analysis.studies.spectreg import combined, mnist
from analysis.studies.spectreg.combined import Cell
from analysis.studies.spectreg.mnist import PAPER_DECAY, Rule
from analysis.sweep import Study


def study(scale: Scale) -> Study:
    """Figure 1 of Varga, Csiszarik and Zombori (2018), section 4.4.

    A cell is a regularizer, a size and a draw; the confidence penalty is the baseline with it.
    Weights are chosen for each size, on draws that are not reported.

    Args:
        scale: "quick": an MLP on 50, 100 and 400 digits. "medium": LeNet-5 on 500 and 2,000 of
            MNIST, one weight a penalty but for the confidence penalty, 400 steps. "full": on 500
            to 20,000.
    """
    sizes = {"quick": (5, 10, 40), "medium": (50, 200), "full": (50, 100, 200, 500, 1000, 2000)}
    tuned, reported = {"quick": (2, 6), "medium": (1, 3), "full": (5, 10)}[scale]
    weights: dict[Rule, tuple[float, ...]] = {
        "baseline": (0.0,), "DoubleBack": (0.3, 3.0, 10.0), "SpectReg": (0.003, 0.03, 0.1),
        "JacReg": (0.3, 3.0),
    }  # fmt: skip
    if scale == "medium":
        weights |= {"DoubleBack": (3.0,), "SpectReg": (0.03,), "JacReg": (1.0,)}
    more: dict[str, Any] = {
        "quick": {"steps": 800},
        "medium": {"data": "mnist", **mnist.MEDIUM},
        "full": {"data": "mnist", **mnist.FULL},
    }[scale]

    def cells(rule: Rule, per_class: int, draw: int) -> list[Cell]:
        small = mnist.Cell(rule, weights[rule], (PAPER_DECAY,), draw, draw < tuned,
                                    per_class=per_class, **more)  # fmt: skip
        if rule != "baseline":
            return [Cell(small, (0.0,), "1")]
        sure = (0.1, 0.3) if scale == "quick" else (0.01, 0.1)
        return [Cell(replace(small, rule="baseline"), (0.0, *sure), "1")]

    return Study(
        "spectreg-sizes",
        combined.run,
        tuple(
            cell
            for rule in weights
            for per_class in sizes[scale]
            for draw in range(tuned + reported)
            for cell in cells(rule, per_class, draw)
        ),
    )
