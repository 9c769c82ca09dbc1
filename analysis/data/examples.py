"""Examples and what is to be learned of them, for training and for testing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Classification:
    """Examples and the class of each.

    Attributes:
        x: The inputs, one example a row.
        y: The classes, 0 to num_classes - 1.
        num_classes: How many classes there are.

    Raises:
        ValueError: If x and y differ in length, x is not finite, or y is no class.

    >>> Classification(np.zeros((2, 3)), np.array([0, 2]), num_classes=2)
    Traceback (most recent call last):
    ...
    ValueError: y must hold classes from 0 to 1; got 0 to 2
    """

    x: Float[np.ndarray, "examples ..."]
    y: Int[np.ndarray, " examples"]
    num_classes: int

    def __post_init__(self):
        _check(self.x, self.y)
        if not np.issubdtype(self.y.dtype, np.integer) or self.y.ndim != 1:
            raise ValueError(
                f"y must be a vector of integers; got {self.y.dtype}, shape {self.y.shape}"
            )
        if self.y.min() < 0 or self.y.max() >= self.num_classes:
            raise ValueError(
                f"y must hold classes from 0 to {self.num_classes - 1}; got {self.y.min()} to "
                f"{self.y.max()}"
            )

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True)
class Regression:
    """Examples and the targets of each.

    Attributes:
        x: The inputs, one example a row.
        y: The targets, one vector an example.

    Raises:
        ValueError: If x and y differ in length, or either is not finite.
    """

    x: Float[np.ndarray, "examples ..."]
    y: Float[np.ndarray, "examples targets"]

    def __post_init__(self):
        _check(self.x, self.y)
        if self.y.ndim != 2 or not np.isfinite(self.y).all():
            raise ValueError(f"y must be finite, one vector an example; got shape {self.y.shape}")

    def __len__(self) -> int:
        return len(self.x)


D = TypeVar("D", Classification, Regression)


@dataclass(frozen=True)
class TrainTest(Generic[D]):
    """A data set in two parts.

    Attributes:
        train: What is trained on.
        test: What it is tested on.
        source: Where the numbers come from, to be said beside every figure.
    """

    train: D
    test: D
    source: str

    def first(self, train: int, test: int | None = None) -> TrainTest[D]:
        """The first so many examples of each part; of the test part all, if not given."""
        test = len(self.test) if test is None else test
        return replace(
            self,
            train=take(self.train, np.arange(_at_most("train", train, self.train))),
            test=take(self.test, np.arange(_at_most("test", test, self.test))),
        )


def split(data: D, test: int, seed: int, source: str = "") -> TrainTest[D]:
    """A random part for testing, the rest for training; classes in proportion.

    Args:
        data: All examples.
        test: How many examples to test on. Of classes each gives its share, rounded so that the
            total is `test`.
        seed: Of the draw.
        source: As in `TrainTest`.

    Raises:
        ValueError: If `test` does not leave an example for each part.

    >>> data = Classification(np.zeros((8, 1)), np.repeat([0, 1], 4), num_classes=2)
    >>> parts = split(data, test=4, seed=0)
    >>> np.bincount(parts.train.y), np.bincount(parts.test.y)
    (array([2, 2]), array([2, 2]))
    """
    if not 0 < test < len(data):
        raise ValueError(f"test must be from 1 to {len(data) - 1} examples; got {test}")
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(data))
    if isinstance(data, Classification):
        # Every example's place within its class, as a share: the lowest shares go to the test.
        rank = np.empty(len(data))
        for c in range(data.num_classes):
            places = order[data.y[order] == c]
            rank[places] = (np.arange(len(places)) + rng.uniform()) / max(len(places), 1)
        order = order[np.argsort(rank[order], kind="stable")]
    return TrainTest(take(data, np.sort(order[test:])), take(data, np.sort(order[:test])), source)


def take(data: D, which: Int[np.ndarray, " chosen"]) -> D:
    """Some of the examples, in the order of `which`."""
    return replace(data, x=data.x[which], y=data.y[which])


def draw_of_each_class(data: Classification, per_class: int, seed: int) -> Classification:
    """A random part with as many examples of each class, in the order they have.

    >>> data = Classification(np.zeros((6, 1)), np.array([0, 0, 0, 1, 1, 1]), num_classes=2)
    >>> draw_of_each_class(data, 2, seed=0).y
    array([0, 0, 1, 1])
    """
    rng = np.random.default_rng(seed)
    chosen = [
        rng.choice(np.flatnonzero(data.y == c), per_class, replace=False)
        for c in range(data.num_classes)
    ]
    return take(data, np.sort(np.concatenate(chosen)))


def standardised(train: D, test: D) -> tuple[D, D]:
    """Both parts with each input less its mean over the first part, over its deviation there.

    An input that never changes there is only centred.
    """
    mean, deviation = train.x.mean(0), train.x.std(0)
    scale = np.where(deviation > 0, deviation, 1)
    return replace(train, x=(train.x - mean) / scale), replace(test, x=(test.x - mean) / scale)


def _at_most(name: str, number: int, data: Classification | Regression) -> int:
    if not 0 < number <= len(data):
        raise ValueError(f"{name} must be from 1 to {len(data)} examples; got {number}")
    return number


def _check(x: np.ndarray, y: np.ndarray) -> None:
    if x.ndim < 2 or len(x) != len(y) or len(x) == 0:
        raise ValueError(
            f"x and y must hold the same examples, at least one; got shapes {x.shape}, {y.shape}"
        )
    if not np.issubdtype(x.dtype, np.floating) or not np.isfinite(x).all():
        raise ValueError(f"x must be finite floating numbers; got {x.dtype}")
