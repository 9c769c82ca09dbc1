"""Spearman's rank correlation of many columns at once, as a bootstrap or a permutation needs."""

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata


def spearman(
    x: Float[np.ndarray, "points _"], y: Float[np.ndarray, "points draws"]
) -> Float[np.ndarray, " draws"]:
    """Pearson's correlation of the ranks in each column; 0 where all in one are equal.

    A single column of x is taken with every one of y.

    >>> spearman(np.array([[1.0], [2.0], [3.0]]), np.array([[1.0, 5.0], [4.0, 5.0], [9.0, 5.0]]))
    array([1., 0.])
    """
    x, y = (rankdata(v, axis=0) - (len(v) + 1) / 2 for v in (x, y))
    scale = np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))
    return np.divide((x * y).sum(axis=0), scale, out=np.zeros_like(scale), where=scale > 0)
