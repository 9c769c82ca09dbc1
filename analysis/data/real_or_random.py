"""The example in six dimensions: a coordinate that all examples share, or none."""

from __future__ import annotations

from typing import Literal

import numpy as np

from analysis.data.examples import Regression, TrainTest


def real_or_random(kind: Literal["real", "random"]) -> TrainTest[Regression]:
    """Five examples, the last for testing, whose first five coordinates are their own.

    In the "real" set the sixth coordinate equals the target in every example, so that gradients
    reinforce each other there; in the "random" one it is 0 and nothing is shared.

    Args:
        kind: Which set.

    Raises:
        ValueError: If `kind` is neither.

    >>> data = real_or_random("real")
    >>> data.train.x[1].tolist(), data.train.y[1].tolist()
    ([0.0, -1.0, 0.0, 0.0, 0.0, -1.0], [-1.0])

    References:
        Walker, "Appealing to Gradients to Investigate Neural Network Generalization" (2023),
        section 5.1; Chatterjee, "Coherent Gradients" (2020).
    """
    if kind not in ("real", "random"):
        raise ValueError(f'kind must be "real" or "random"; got {kind!r}')
    y = np.array([1.0, -1.0, -1.0, 1.0, -1.0])[:, None]
    x = np.concatenate([np.diag(y[:, 0]), y if kind == "real" else 0 * y], axis=1)
    return TrainTest(Regression(x[:4], y[:4]), Regression(x[4:], y[4:]), f"six dimensions, {kind}")
