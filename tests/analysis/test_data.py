"""The data sets are what their owners say they are."""

import numpy as np
from sklearn import datasets

from analysis.data import digits


def test_digits_are_the_published_ones():
    data = digits()
    published = datasets.load_digits()
    np.testing.assert_array_equal(data.x * 16, published["data"])
    np.testing.assert_array_equal(data.y, published["target"])


def test_digits_have_the_published_class_counts():
    # From the data set's own description: 1,797 examples, ten classes of about 180.
    data = digits()
    assert data.x.shape == (1797, 64)
    assert data.x.dtype == np.float64
    np.testing.assert_array_equal(
        np.bincount(data.y, minlength=data.num_classes),
        [178, 182, 177, 183, 181, 182, 181, 179, 174, 180],
    )
