"""Wrong labels and shifted targets, put into the training part alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from analysis.data.examples import Classification, Regression, TrainTest


def flip_labels(
    data: TrainTest[Classification],
    fraction: float,
    seed: int,
    to: Literal["other", "any"] = "other",
) -> TrainTest[Classification]:
    """A fraction of the training labels replaced by random ones; the test part as it was.

    Args:
        data: The set.
        fraction: What part of the training labels, in [0, 1]; rounded to whole examples.
        seed: Of which and of what they become.
        to: "other": a class that is not the example's own, all others alike. "any": every class
            alike, so that one in num_classes of them stays right.

    Raises:
        ValueError: If `fraction` is not in [0, 1] or `to` not one of the two.

    >>> clean = Classification(np.zeros((10, 1)), np.zeros(10, int), num_classes=3)
    >>> noisy = flip_labels(TrainTest(clean, clean, ""), 0.3, seed=0)
    >>> int((noisy.train.y != 0).sum()), int((noisy.test.y != 0).sum())
    (3, 0)
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must be in [0, 1]; got {fraction!r}")
    if to not in ("other", "any"):
        raise ValueError(f'to must be "other" or "any"; got {to!r}')
    rng = np.random.default_rng(seed)
    train = data.train
    which = rng.permutation(len(train))[: round(fraction * len(train))]
    y = train.y.copy()
    if to == "other":
        y[which] = (y[which] + rng.integers(1, train.num_classes, len(which))) % train.num_classes
    else:
        y[which] = rng.integers(0, train.num_classes, len(which))
    return TrainTest(
        replace(train, y=y), data.test, f"{data.source}, {fraction:.0%} of the labels random"
    )


def shift_targets(data: TrainTest[Regression], scale: float, seed: int) -> TrainTest[Regression]:
    """Gaussian noise added to the training targets; the test part as it was.

    Args:
        data: The set.
        scale: The standard deviation, in the targets' unit.
        seed: Of the noise.

    Raises:
        ValueError: If `scale` is negative or not finite.
    """
    if not (np.isfinite(scale) and scale >= 0):
        raise ValueError(f"scale must be finite and at least 0; got {scale!r}")
    train = data.train
    noise = scale * np.random.default_rng(seed).normal(size=train.y.shape)
    return TrainTest(
        replace(train, y=(train.y + noise).astype(train.y.dtype)),
        data.test,
        f"{data.source}, targets with noise of {scale:g}",
    )
