"""Handwritten digits of 8 by 8 pixels, which come with scikit-learn."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from analysis.data.examples import Classification


def digits() -> Classification:
    """Handwritten digits, 8 by 8 grey levels: the set that comes with scikit-learn, no download.

    The test half of the "Optical Recognition of Handwritten Digits" data (Alpaydin and Kaynak
    1998).

    Returns:
        1,797 examples of 64 pixels in [0, 1] (float64), in 10 classes.

    >>> data = digits()
    >>> data.x.shape, float(data.x.min()), float(data.x.max()), data.num_classes
    ((1797, 64), 0.0, 1.0, 10)
    """
    pixels, classes = load_digits(return_X_y=True)
    return Classification(pixels / 16.0, classes.astype(np.int32), 10)
