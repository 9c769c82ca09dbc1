"""Label noise and the size of the training set, by regularizer (MGS, Figures A.4 to A.13)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from analysis.scale import Scale
from analysis.studies.mgs import label_noise
from analysis.sweep import Study


def study(scale: Scale) -> Study:
    """The test bench of Szolnoky et al. (2022), appendix D.1: sizes from 250 to 9,000, all noises.

    A cell is a regularizer and a size: its factor is chosen as for Table 1, once for all sizes.

    Args:
        scale: "quick": three sizes of digits. "medium" and "full": blurred MNIST, at "medium" 100
            and 300 examples in 40 epochs. The networks are those of `mgs-label-noise`.
    """
    sizes: tuple[int, ...] = (250, 1000, 3000, 9000)
    other: dict[str, dict[str, Any]] = {}  # by what is learned
    if scale == "medium":
        shorter = {"epochs": 40, "tuning_epochs": 10}
        sizes, other = (100, 300), {"blurred mnist": shorter, "blurred mnist, FCN": shorter}
    if scale == "quick":
        sizes = (96, 288, 768)
        other = {
            "digits": {"draws": 3, "epochs": 150, "tuning_draws": 2},
            "digits, LeNet-5": {"draws": 3, "epochs": 100, "tuning_draws": 1},
        }
    if scale == "full":
        more = {"noises": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)}
        other = {"blurred mnist": more, "blurred mnist, FCN": more}
    cells = label_noise.study(scale).cells
    bench = tuple(
        replace(cell, examples=size, every=cell.samples, **other.get(cell.data, {}))
        for cell in cells
        for size in sizes
    )
    return Study("mgs-noise-and-size", label_noise.run, bench)
