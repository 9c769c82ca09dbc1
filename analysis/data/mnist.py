"""MNIST, from the original files or from OpenML."""

from __future__ import annotations

from urllib.error import URLError

import numpy as np

from analysis.data.examples import Classification, TrainTest
from analysis.data.folder import find
from analysis.data.idx import read_idx

_SIDE = 28
_TRAIN, _TEST = 60_000, 10_000


def mnist() -> TrainTest[Classification]:
    """Handwritten digits of 28 by 28 pixels (LeCun, Cortes and Burges).

    Read from the four IDX files, gzipped or not, in the folder `IGR_DATA` (or in `mnist` or
    `MNIST/raw` below it); where they are not there, fetched from OpenML by scikit-learn, which
    keeps a copy.

    Returns:
        60,000 examples to train on and 10,000 to test on, float32 in [0, 1] of shape (1, 28, 28).

    Raises:
        FileNotFoundError: If the files are not there and OpenML cannot be reached: says both ways.
        ValueError: If a file is not what it says.
    """
    read = {
        part: (_file(f"{part}-images", "idx3"), _file(f"{part}-labels", "idx1"))
        for part in ("train", "t10k")
    }
    missing = [part for part, files in read.items() if None in files]
    if missing:
        return _fetched()
    parts = [
        _part(
            read_idx(images, (number, _SIDE, _SIDE)),  # pyright: ignore[reportArgumentType]
            read_idx(labels, (number,)),  # pyright: ignore[reportArgumentType]
        )
        for (images, labels), number in zip(read.values(), (_TRAIN, _TEST), strict=True)
    ]
    return TrainTest(*parts, source="MNIST, the original files")


def _file(stem: str, kind: str):
    names = [f"{stem}{dot}{kind}-ubyte{end}" for dot in "-." for end in ("", ".gz")]
    return find(names, ("mnist", "MNIST/raw", "MNIST"))


def _fetched() -> TrainTest[Classification]:
    from sklearn.datasets import fetch_openml

    try:
        x, y = fetch_openml("mnist_784", version=1, return_X_y=True, as_frame=False, parser="auto")
    except (URLError, OSError) as error:
        raise FileNotFoundError(
            "MNIST is not on this machine. Either put train-images-idx3-ubyte.gz, "
            "train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz "
            "in a folder and set IGR_DATA to it, or run where there is a network: scikit-learn "
            f"then fetches it from OpenML (tried: {error})"
        ) from error
    if x.shape != (_TRAIN + _TEST, _SIDE**2) or len(y) != len(x):
        raise ValueError(f"OpenML's mnist_784 has shapes {x.shape} and {y.shape}")
    if x.min() < 0 or x.max() > 255 or not np.array_equal(x, np.round(x)):
        raise ValueError("OpenML's mnist_784 holds other values than grey levels 0 to 255")
    images, labels = x.reshape(-1, _SIDE, _SIDE), y.astype(np.int64)
    return TrainTest(
        _part(images[:_TRAIN], labels[:_TRAIN]),
        _part(images[_TRAIN:], labels[_TRAIN:]),
        source="MNIST, from OpenML",
    )


def _part(images: np.ndarray, labels: np.ndarray) -> Classification:
    return Classification(
        images[:, None].astype(np.float32) / np.float32(255), labels.astype(np.int32), 10
    )
