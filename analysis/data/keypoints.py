"""Facial keypoints: the csv of the Kaggle competition, and a stand-in that is drawn."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from jaxtyping import Float

from analysis.data.examples import Regression, TrainTest, split
from analysis.data.folder import find

_SIDE = 96
_TARGETS = 30


def keypoints(
    path: str | Path | None = None, *, test_share: float = 0.7, seed: int = 0
) -> TrainTest[Regression]:
    """Faces of 96 by 96 pixels and where 15 points of each are.

    Args:
        path: `training.csv` of the Kaggle competition "Facial Keypoints Detection"; by default the
            file of that name in the folder `IGR_DATA`, or in `keypoints` or
            `facial-keypoints-detection` below it.
        test_share: What part is for testing: 70 % in the experiments of the paper.
        seed: Of the split.

    Returns:
        The faces with all 15 points: images (1, 96, 96), float32 in [0, 1], and targets (30,) in
        pixels, x and y in turns in the order of the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not what it says.

    References:
        Szolnoky et al., "On the Interpretability of Regularisation for Neural Networks Through
        Model Gradient Similarity" (2022), section 6.2.
    """
    folders = ("keypoints", "facial-keypoints-detection")
    found = Path(path) if path is not None else find(["training.csv"], folders)
    if found is None or not found.is_file():
        raise FileNotFoundError(
            f"facial keypoints are not at {path or 'IGR_DATA'}. Download training.csv of Kaggle's "
            "'Facial Keypoints Detection', put it in a folder and set IGR_DATA to it; "
            "drawn_keypoints() is a stand-in of the same shape"
        )
    x, y = _read(found)
    if len(x) < 2:
        raise ValueError(f"{found} holds {len(x)} faces with all points; at least 2 are needed")
    test = min(max(round(test_share * len(x)), 1), len(x) - 1)
    return split(Regression(x, y), test, seed, "facial keypoints, Kaggle's training.csv")


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    images, targets = [], []
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        if len(header) != _TARGETS + 1 or header[-1] != "Image":
            raise ValueError(
                f"{path} has {len(header)} columns, the last {header[-1:]}; expected {_TARGETS} "
                "coordinates and Image"
            )
        for line, row in enumerate(rows, start=2):
            if len(row) != len(header):
                raise ValueError(f"{path}, line {line}: {len(row)} fields, not {len(header)}")
            if "" in row[:-1]:  # a point that was not marked
                continue
            try:
                target = np.array(row[:-1], np.float32)
                image = np.array(row[-1].split(), np.int64)
            except ValueError as error:
                raise ValueError(f"{path}, line {line}: {error}") from error
            if image.size != _SIDE**2 or image.min() < 0 or image.max() > 255:
                raise ValueError(f"{path}, line {line}: no image of 96 by 96 grey levels")
            if not ((target >= 0) & (target <= _SIDE)).all():
                raise ValueError(f"{path}, line {line}: a point outside the image")
            images.append(image.astype(np.uint8).reshape(1, _SIDE, _SIDE))
            targets.append(target)
    x = np.array(images, np.float32).reshape(-1, 1, _SIDE, _SIDE) / np.float32(255)
    return x, np.array(targets, np.float32).reshape(-1, _TARGETS)


# The 15 points of an upright face: eyes (centre, inner and outer corner), brows (inner and outer
# end), nose, mouth (corners, upper and lower lip), as parts of the image's side.
_FACE = np.array(
    [(.69, .39), (.31, .39), (.61, .39), (.76, .39), (.39, .39), (.24, .39), (.59, .30),
     (.83, .30), (.41, .30), (.17, .30), (.50, .58), (.66, .77), (.34, .77), (.50, .73),
     (.50, .82)]
)  # fmt: skip
_BRIGHTNESS = np.array(
    [-1, -1, 0.5, 0.5, 0.5, 0.5, -0.7, -0.7, -0.7, -0.7, 0.9, -0.4, -0.4, -0.6, -0.6]
)


def drawn_keypoints(
    number: int = 500, *, side: int = _SIDE, test_share: float = 0.7, seed: int = 0
) -> TrainTest[Regression]:
    """Drawn faces with known points: a stand-in where the photographs are not at hand.

    Fifteen soft spots in the layout of a face, which is turned, scaled, moved and whose points
    are moved singly, on a ground with a gradient of light and noise. What is learned from it is
    no statement about photographs.

    Args:
        number: How many, at least 2.
        side: The side of an image in pixels.
        test_share: What part is for testing.
        seed: Of everything random.

    Returns:
        As `keypoints`, with images (1, side, side).

    Raises:
        ValueError: If `number` is below 2 or `side` below 8.

    >>> data = drawn_keypoints(10, side=16)
    >>> data.train.x.shape, data.train.y.shape, data.source
    ((3, 1, 16, 16), (3, 30), 'drawn faces (a stand-in for facial keypoints)')
    """
    if number < 2 or side < 8:
        raise ValueError(f"number must be at least 2 and side at least 8; got {number}, {side}")
    rng = np.random.default_rng(seed)
    turn, scale = rng.uniform(-0.25, 0.25, number), rng.uniform(0.75, 1.0, number)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = np.einsum("abn,kb,n->nka", rotation, _FACE - 0.5, scale) + 0.5
    points += rng.uniform(-0.06, 0.06, (number, 1, 2)) + rng.normal(0, 0.008, points.shape)
    points = np.clip(points, 0.0, 1.0) * side
    images = np.stack([_drawn(face, side, rng) for face in points])
    data = Regression(
        images[:, None].astype(np.float32), points.reshape(number, _TARGETS).astype(np.float32)
    )
    test = min(max(round(test_share * number), 1), number - 1)
    return split(data, test, seed, "drawn faces (a stand-in for facial keypoints)")


def _drawn(
    points: Float[np.ndarray, "15 2"], side: int, rng: np.random.Generator
) -> Float[np.ndarray, "side side"]:
    pixels = np.arange(side) + 0.5
    spread = 0.025 * side
    across = np.exp(-((pixels[None] - points[:, :1]) ** 2) / (2 * spread**2))
    down = np.exp(-((pixels[None] - points[:, 1:]) ** 2) / (2 * spread**2))
    light = 0.5 + np.multiply.outer(pixels / side - 0.5, np.ones(side)) * rng.uniform(-0.3, 0.3)
    image = light + 0.4 * np.einsum("k,ky,kx->yx", _BRIGHTNESS, down, across)
    return np.clip(image + rng.normal(0, 0.03, image.shape), 0.0, 1.0)
