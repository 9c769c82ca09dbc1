"""Two concentric circles with noise."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import make_circles

from analysis.data.examples import Classification, TrainTest


def two_circles(
    seed: int = 0,
    *,
    train: int = 100,
    test: int = 1000,
    noise: float = 0.2,
    factor: float = 0.5,
) -> TrainTest[Classification]:
    """Points near one of two concentric circles, and which.

    The paper gives neither size nor noise: those here are ours, so that the classes overlap a
    little and a network can fit single points.

    Args:
        seed: Of the noise; the test part has its own.
        train: How many points to train on, half on each circle.
        test: How many to test on.
        noise: The standard deviation of the noise in each coordinate.
        factor: The inner circle's radius; the outer one's is 1.

    Returns:
        Class 0 on the outer circle, 1 on the inner.

    >>> data = two_circles()
    >>> data.train.x.shape, data.test.x.shape
    ((100, 2), (1000, 2))

    References:
        Szolnoky et al., "On the Interpretability of Regularisation for Neural Networks Through
        Model Gradient Similarity" (2022), Figure 2.
    """
    states = np.random.SeedSequence(seed).generate_state(2)
    parts = []
    for number, state in zip((train, test), states, strict=True):
        x, y = make_circles(number, noise=noise, factor=factor, random_state=int(state))
        parts.append(Classification(x, y.astype(np.int32), 2))
    return TrainTest(*parts, source=f"two circles, noise {noise:g}")
