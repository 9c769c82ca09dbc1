"""The synthetic regression of the dissertation on Metric regularization."""

from __future__ import annotations

import numpy as np

from analysis.data.examples import Regression, TrainTest


def synthetic_regression(
    seed: int = 0,
    *,
    number: int = 2000,
    inputs: int = 256,
    a: float = 1.0,
    b: float = 2.0,
    c: float = 1.0,
    sigma: float = 1.0,
) -> TrainTest[Regression]:
    """y = a sin(x . w) + a x . v + noise.

    The entries of x are uniform on (0, b), those of w and v on (0, c); the noise has standard
    deviation sigma. The last fifth is for testing. The dissertation calls N = 2000 the data and
    M = 256 the dimensions, its formula the other way round; with 256 inputs var(y) is about 30,
    which is the value it reports (29.7 and 31.0).

    Args:
        seed: Of everything random.
        number: How many examples in all.
        inputs: How many inputs.
        a: The outputs' scale.
        b: The inputs' range.
        c: The weights' range.
        sigma: The noise.

    >>> data = synthetic_regression()
    >>> data.train.x.shape, data.test.x.shape, bool(25 < data.train.y.var() < 36)
    ((1600, 256), (400, 256), True)

    References:
        Jarvis, "Generalizing Regularization of Neural Networks to Correlated Parameter Spaces"
        (2021), section 4.2.3.
    """
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.0, b, (number, inputs))
    w, v = rng.uniform(0.0, c, (2, inputs))
    y = (a * np.sin(x @ w) + a * x @ v + rng.normal(0.0, sigma, number))[:, None]
    rest = number - number // 5
    return TrainTest(Regression(x[:rest], y[:rest]), Regression(x[rest:], y[rest:]), "synthetic")
