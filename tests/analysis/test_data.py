"""The data sets are what their owners say they are."""

import gzip
import itertools
import math
import struct
import sys
from urllib.error import URLError

import numpy as np
import pytest
from sklearn import datasets

from analysis import data
from analysis.data import Classification, Regression, TrainTest
from analysis.data.idx import read_idx
from analysis.data.motion_blur import SEVERITIES, blurred


def test_digits_are_the_published_ones():
    digits = data.digits()
    published = datasets.load_digits()
    np.testing.assert_array_equal(digits.x * 16, published["data"])
    np.testing.assert_array_equal(digits.y, published["target"])


def test_digits_have_the_published_class_counts():
    # From the data set's own description: 1,797 examples, ten classes of about 180.
    digits = data.digits()
    assert digits.x.shape == (1797, 64)
    assert digits.x.dtype == np.float64
    np.testing.assert_array_equal(
        np.bincount(digits.y, minlength=digits.num_classes),
        [178, 182, 177, 183, 181, 182, 181, 179, 174, 180],
    )


# What an example is


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Classification(np.zeros((2, 3)), np.zeros(3, int), 2), "the same examples"),
        (lambda: Classification(np.zeros((0, 3)), np.zeros(0, int), 2), "at least one"),
        (lambda: Classification(np.zeros((1, 3), int), np.zeros(1, int), 2), "finite floating"),
        (lambda: Classification(np.full((1, 3), np.nan), np.zeros(1, int), 2), "x must be finite"),
        (lambda: Classification(np.zeros((1, 3)), np.zeros(1), 2), "vector of integers; got float"),
        (lambda: Classification(np.zeros((1, 3)), np.array([-1]), 2), "from 0 to 1; got -1"),
        (lambda: Regression(np.zeros((2, 3)), np.zeros(2)), r"one vector an example; got .*\(2,\)"),
        (lambda: Regression(np.zeros((1, 3)), np.array([[np.inf]])), "y must be finite"),
    ],
)
def test_bad_examples(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_split_keeps_every_example_once_and_classes_in_proportion():
    y = np.repeat([0, 1, 2], [10, 20, 70])
    whole = Classification(np.arange(100.0)[:, None], y, 3)
    parts = data.split(whole, 50, seed=3)
    np.testing.assert_array_equal(
        np.sort(np.concatenate([parts.train.x, parts.test.x])[:, 0]), np.arange(100)
    )
    assert abs(np.bincount(parts.test.y) - [5, 10, 35]).max() <= 1
    np.testing.assert_array_equal(y[parts.test.x[:, 0].astype(int)], parts.test.y)
    again, other = data.split(whole, 50, seed=3), data.split(whole, 50, seed=4)
    np.testing.assert_array_equal(parts.test.x, again.test.x)
    assert (parts.test.x != other.test.x).any()
    with pytest.raises(ValueError, match="test must be from 1 to 99 examples; got 100"):
        data.split(whole, 100, seed=0)
    assert len(parts.first(3, 4).test) == 4
    with pytest.raises(ValueError, match="train must be from 1 to 50 examples; got 51"):
        parts.first(51)


# MNIST


def idx(array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def small_mnist(folder, monkeypatch):
    """Files of the format with 3 and 2 images instead of 60,000 and 10,000."""
    monkeypatch.setattr(sys.modules["analysis.data.mnist"], "_TRAIN", 3)
    monkeypatch.setattr(sys.modules["analysis.data.mnist"], "_TEST", 2)
    images = np.arange(5 * 784).reshape(5, 28, 28) % 256
    (folder / "mnist").mkdir()
    for part, which in (("train", slice(0, 3)), ("t10k", slice(3, 5))):
        content = gzip.compress(idx(images[which]), mtime=0)
        (folder / "mnist" / f"{part}-images-idx3-ubyte.gz").write_bytes(content)
        (folder / "mnist" / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(5)[which]))
    return images


def test_mnist_from_files(small_mnist):
    read = data.mnist()
    assert read.source == "MNIST, the original files"
    assert read.train.x.shape == (3, 1, 28, 28)
    assert read.train.x.dtype == np.float32
    both = np.concatenate([read.train.x, read.test.x])[:, 0]
    np.testing.assert_array_equal(np.round(both * 255), small_mnist)
    np.testing.assert_array_equal(np.concatenate([read.train.y, read.test.y]), np.arange(5))


def test_mnist_from_openml(tmp_path, monkeypatch):
    monkeypatch.delenv("IGR_DATA", raising=False)
    monkeypatch.setattr(sys.modules["analysis.data.mnist"], "_TRAIN", 3)
    monkeypatch.setattr(sys.modules["analysis.data.mnist"], "_TEST", 2)
    images = np.arange(5 * 784).reshape(5, 784) % 256
    fetched = images.astype(float), np.array(list("01234"))
    monkeypatch.setattr("sklearn.datasets.fetch_openml", lambda *args, **kwargs: fetched)
    read = data.mnist()
    assert read.source == "MNIST, from OpenML"
    np.testing.assert_array_equal(np.round(read.test.x.reshape(2, 784) * 255), images[3:])
    np.testing.assert_array_equal(read.test.y, [3, 4])
    fetched[0][0, 0] = 0.5
    with pytest.raises(ValueError, match="other values than grey levels"):
        data.mnist()


def test_mnist_nowhere_says_both_ways(folder, monkeypatch):
    def unreachable(*args, **kwargs):
        raise URLError("no route")

    monkeypatch.setattr("sklearn.datasets.fetch_openml", unreachable)
    with pytest.raises(FileNotFoundError, match=r"set IGR_DATA to it, or .* network.*no route"):
        data.mnist()
    monkeypatch.setenv("IGR_DATA", str(folder / "nothing"))
    with pytest.raises(ValueError, match=r"IGR_DATA is '.*nothing', which is no folder"):
        data.mnist()


GOOD = idx(np.zeros((2, 28, 28)))


@pytest.mark.parametrize(
    ("content", "name", "says"),
    [
        (b"\x80\x04" + GOOD, "a", "it starts with 80 04 00 00, not 00 00 08 03"),
        (GOOD[:-1], "a", "says sizes .*, 1568 bytes, and holds 1567"),
        (GOOD + b"0", "a", "holds 1569"),
        (GOOD[:9], "a", "ends in its header"),
        (idx(np.zeros((2, 28, 27))), "a", r"holds sizes \(2, 28, 27\); expected \(None, 28, 28\)"),
        (idx(np.zeros(2)), "a", "no IDX file of bytes in 3 dimensions"),
        (GOOD, "a.gz", "is not whole gzip"),
        (gzip.compress(GOOD, mtime=0)[:-20], "a.gz", "is not whole gzip"),
    ],
)
def test_damaged_idx(tmp_path, content, name, says):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=says):
        read_idx(path, (None, 28, 28))


# Motion blur and noise


@pytest.mark.parametrize(("severity", "degrees"), [(1, 17.0), (3, -44.0), (5, 45.0)])
def test_motion_blur_by_its_definition(severity, degrees):
    radius, sigma = SEVERITIES[severity - 1]
    image = np.random.default_rng(severity).uniform(size=(6, 7))
    kernel = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(2 * radius + 1)]
    a = math.radians(degrees)
    expected = np.zeros_like(image)
    for y, x in itertools.product(range(6), range(7)):
        for i, k in enumerate(kernel):
            from_y = min(max(y + math.ceil(i * math.sin(a) - 0.5), 0), 5)
            from_x = min(max(x + math.ceil(i * math.cos(a) - 0.5), 0), 6)
            expected[y, x] += k / sum(kernel) * image[from_y, from_x]
    found = blurred(image[None, None], radius, sigma, np.array([degrees]))
    np.testing.assert_allclose(found[0, 0], expected, atol=1e-14)


def test_motion_blur_of_a_set():
    rng = np.random.default_rng(0)
    image = rng.uniform(size=(1, 28, 28)).astype(np.float32)
    part = Classification(np.stack([image] * 3), np.zeros(3, int), 2)
    result = data.motion_blur(TrainTest(part, part, "noise"), seed=1)
    assert result.source == "noise, motion blur of severity 1"
    assert result.train.x.dtype == np.float32
    six = np.concatenate([result.train.x, result.test.x])  # a direction each
    assert len(np.unique(six, axis=0)) == 6
    assert six.min() >= 0
    assert six.max() <= 1
    with pytest.raises(ValueError, match="severity must be 1 to 5; got 0"):
        data.motion_blur(TrainTest(part, part, ""), severity=0)
    flat = Classification(np.zeros((2, 4)), np.zeros(2, int), 2)
    with pytest.raises(ValueError, match="needs images"):
        data.motion_blur(TrainTest(flat, flat, ""))


def test_flipped_labels():
    clean = Classification(np.zeros((5000, 1)), np.arange(5000) % 10, 10)
    noisy = data.flip_labels(TrainTest(clean, clean, "s"), 0.4, seed=0)
    wrong = noisy.train.y != clean.y
    assert wrong.sum() == 2000
    np.testing.assert_array_equal(noisy.test.y, clean.y)
    shifts = np.bincount((noisy.train.y - clean.y)[wrong] % 10, minlength=10)
    assert shifts[0] == 0
    assert abs(shifts[1:] - 2000 / 9).max() < 5 * math.sqrt(2000 / 9)
    anything = data.flip_labels(TrainTest(clean, clean, "s"), 1.0, seed=0, to="any")
    assert abs((anything.train.y == clean.y).mean() - 0.1) < 0.03
    assert noisy.source == "s, 40% of the labels random"
    with pytest.raises(ValueError, match=r"fraction must be in \[0, 1\]; got 1.5"):
        data.flip_labels(noisy, 1.5, seed=0)


def test_shifted_targets():
    clean = Regression(np.zeros((4000, 1)), np.zeros((4000, 2)))
    noisy = data.shift_targets(TrainTest(clean, clean, "s"), 3.0, seed=0)
    assert abs(noisy.train.y.std() - 3.0) < 0.15
    assert not noisy.test.y.any()
    with pytest.raises(ValueError, match="scale must be finite and at least 0; got -1"):
        data.shift_targets(noisy, -1, seed=0)


# Generated sets


def test_sin():
    read = data.sin(seed=2, number=4000)
    residual = read.train.y - np.sin(5 * read.train.x)
    assert abs(residual.std() - 0.1) < 0.01
    np.testing.assert_array_equal(read.test.y, np.sin(5 * read.test.x))
    np.testing.assert_allclose(np.diff(read.test.x[:, 0]), 2 / 899)


def test_two_circles():
    read = data.two_circles(train=2000, noise=0.05)
    radius = np.linalg.norm(read.train.x, axis=1)
    np.testing.assert_allclose(radius[read.train.y == 0].mean(), 1.0, atol=0.01)
    np.testing.assert_allclose(radius[read.train.y == 1].mean(), 0.5, atol=0.01)
    assert (read.train.x[:10] != read.test.x[:10]).all()


@pytest.mark.parametrize("seed", range(3))
def test_xord(seed):
    read = data.xord(seed)
    strings = np.concatenate([read.train.x, read.test.x])
    assert len(np.unique(strings, axis=0)) == 22
    positive = (strings.reshape(22, 5, 2).prod(axis=2) == -1).sum(axis=1)  # signs that differ
    np.testing.assert_array_equal(positive, np.concatenate([read.train.y, read.test.y]))


def test_xord_that_cannot_be():
    with pytest.raises(ValueError, match="together at most 8 with 2 pairs; got 6 and 4"):
        data.xord(pairs=2, train=6, test=4)
    with pytest.raises(ValueError, match="must be even"):
        data.xord(train=3)


def test_synthetic_regression_is_its_formula_up_to_noise():
    one = data.synthetic_regression(5, sigma=0.0, number=50, inputs=3)
    x, y = one.train.x, one.train.y[:, 0]
    noisy = data.synthetic_regression(5, sigma=2.0, number=50, inputs=3)
    np.testing.assert_array_equal(noisy.train.x, x)
    assert 0.5 < (noisy.train.y[:, 0] - y).std() < 4
    # Linear in x but for a bounded part: a sin(.).
    fit = x @ np.linalg.lstsq(x, y, rcond=None)[0]
    assert abs(y - fit).max() < 2
    assert x.min() >= 0
    assert 1.5 < x.max() <= 2


def test_six_dimensions():
    # Tables of section 5.1, row by row.
    real = data.real_or_random("real")
    np.testing.assert_array_equal(
        real.train.x,
        [[1, 0, 0, 0, 0, 1], [0, -1, 0, 0, 0, -1], [0, 0, -1, 0, 0, -1], [0, 0, 0, 1, 0, 1]],
    )
    np.testing.assert_array_equal(real.test.x, [[0, 0, 0, 0, -1, -1]])
    np.testing.assert_array_equal(data.real_or_random("random").test.x, [[0, 0, 0, 0, -1, 0]])
    np.testing.assert_array_equal(real.train.y[:, 0], [1, -1, -1, 1])
    with pytest.raises(ValueError, match=r"kind must be .* got 'fake'"):
        data.real_or_random("fake")  # pyright: ignore
