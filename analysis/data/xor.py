"""XOR of two signs, and XORD: is it anywhere among several pairs?"""

from __future__ import annotations

import itertools

import numpy as np

from analysis.data.examples import Classification, TrainTest


def xor() -> TrainTest[Classification]:
    """The four sign pairs; class 1 where the signs differ. They are all there is, so both parts.

    >>> data = xor().train
    >>> data.x.tolist(), data.y.tolist()
    ([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]], [0, 1, 1, 0])

    References:
        Jarvis, "Generalizing Regularization of Neural Networks to Correlated Parameter Spaces"
        (2021), section 4.2.1.
    """
    x = np.array(list(itertools.product((-1.0, 1.0), repeat=2)))
    whole = Classification(x, np.array([0, 1, 1, 0]), 2)
    return TrainTest(whole, whole, "XOR")


def xord(
    seed: int = 0, *, pairs: int = 5, train: int = 12, test: int = 10
) -> TrainTest[Classification]:
    """XOR detection: class 1 where the signs of any of the pairs differ.

    Args:
        seed: Of which strings are drawn.
        pairs: How many pairs a string of signs has.
        train: How many strings to train on, an even number.
        test: How many others to test on, an even number.

    Returns:
        Strings of 2 `pairs` signs, no two alike; half of each part in either class. A string of
        class 1 has one pair that differs and no more.

    Raises:
        ValueError: If a number is odd or there are not that many strings.

    >>> data = xord()
    >>> data.train.x.shape, int(data.train.y.sum()), len(data.test)
    ((12, 10), 6, 10)

    References:
        Jarvis, "Generalizing Regularization of Neural Networks to Correlated Parameter Spaces"
        (2021), section 4.2.1; Brutzkus and Globerson, "Why do larger models generalize better?"
        (2019), where pairs that agree are the positive ones.
    """
    strings = np.array(list(itertools.product((-1.0, 1.0), repeat=2 * pairs)))
    differing = _differ(strings).sum(axis=1)
    half = (train // 2, test // 2)
    groups = [strings[differing == 0], strings[differing == 1]]
    fewest = min(len(group) for group in groups)
    if train % 2 or test % 2 or min(half) < 1 or sum(half) > fewest:
        raise ValueError(
            f"train and test must be even, at least 2, and together at most {2 * fewest} with "
            f"{pairs} pairs; got {train} and {test}"
        )
    rng = np.random.default_rng(seed)
    drawn = [group[rng.permutation(len(group))] for group in groups]
    parts = []
    for start, stop in ((0, half[0]), (half[0], sum(half))):
        x = np.concatenate([group[start:stop] for group in drawn])
        y = np.repeat(np.arange(2, dtype=np.int32), stop - start)
        parts.append(Classification(x, y, 2))
    return TrainTest(*parts, source=f"XORD, {pairs} pairs")


def _differ(strings: np.ndarray) -> np.ndarray:
    return strings[:, ::2] != strings[:, 1::2]
