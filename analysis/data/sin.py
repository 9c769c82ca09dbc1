"""SIN: a sine on an interval, from few noisy points."""

from __future__ import annotations

import numpy as np

from analysis.data.examples import Regression, TrainTest


def sin(
    seed: int = 0, *, number: int = 100, noise: float = 0.1, grid: int = 900
) -> TrainTest[Regression]:
    """The curve y = sine of 5x on [-1, 1], with noise.

    Args:
        seed: Of the points and their noise.
        number: How many points to train on.
        noise: The standard deviation of the training targets' noise.
        grid: How many evenly spaced points without noise to test on.

    >>> data = sin()
    >>> data.train.x.shape, data.test.x.shape, float(data.test.x[0, 0])
    ((100, 1), (900, 1), -1.0)

    References:
        Varga, Csiszarik and Zombori, "Gradient Regularization Improves Accuracy of Discriminative
        Models" (2018), section 4.4 and appendix B.4.
    """
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1.0, 1.0, (number, 1))
    y = np.sin(5.0 * x) + rng.normal(0.0, noise, x.shape)
    even = np.linspace(-1.0, 1.0, grid)[:, None]
    return TrainTest(Regression(x, y), Regression(even, np.sin(5.0 * even)), "SIN")
