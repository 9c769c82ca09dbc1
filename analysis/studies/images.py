"""The small images that most studies learn."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from analysis.data import Classification, TrainTest, digits, mnist, split

Images = Literal["digits", "10,000 of mnist", "mnist"]


def images(name: Images) -> TrainTest[Classification]:
    """MNIST as it is divided, or scikit-learn's digits, always divided in the same way.

    "10,000 of mnist" has the first 10,000 training images of MNIST, and all that test.

    Raises:
        FileNotFoundError: If MNIST is neither there nor can be fetched.
    """
    if name == "mnist":
        return mnist()
    if name == "10,000 of mnist":
        return replace(
            (found := mnist()).first(10_000), source=f"{found.source}, 10,000 to train on"
        )
    return split(digits(), 597, seed=0, source="scikit-learn's digits, a third to test on")
