"""TinyImageNet-200, from the folder as its owners publish it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis.data.examples import Classification, TrainTest
from analysis.data.folder import data_folder

_NAME = "tiny-imagenet-200"
_SIDE = 64


def tiny_imagenet(path: str | Path | None = None) -> TrainTest[Classification]:
    """Colour images of 64 by 64 of 200 kinds of things (Stanford's CS231n).

    Args:
        path: The folder `tiny-imagenet-200`, with `wnids.txt`, `train/*/images/*.JPEG` and
            `val/val_annotations.txt`; by default the one of that name in the folder `IGR_DATA`.

    Returns:
        float32 images in [0, 1] of shape (3, 64, 64); the published validation images are the test
        part, for those of `test` have no labels. Classes are in the order of `wnids.txt`.

    Raises:
        FileNotFoundError: If there is no such folder, or an image of it is missing.
        ValueError: If a file is not what it says.
    """
    base = data_folder()
    found = Path(path) if path is not None else None if base is None else base / _NAME
    if found is None or not (found / "wnids.txt").is_file():
        raise FileNotFoundError(
            f"TinyImageNet is not at {path or 'IGR_DATA'}. Unpack tiny-imagenet-200.zip in a "
            "folder and set IGR_DATA to it; textures() is a stand-in of its kind"
        )
    names = (found / "wnids.txt").read_text(encoding="utf-8").split()
    number = {name: i for i, name in enumerate(names)}
    train = [
        (path, number[name])
        for name in names
        for path in sorted((found / "train" / name / "images").glob("*.JPEG"))
    ]
    test = []
    notes = found / "val" / "val_annotations.txt"
    for line, text in enumerate(notes.read_text(encoding="utf-8").splitlines(), start=1):
        fields = text.split("\t")
        if len(fields) < 2 or fields[1] not in number:
            raise ValueError(f"{notes}, line {line}: expected an image and one of {len(names)} "
                             f"classes; got {text[:60]!r}.")  # fmt: skip
        test.append((found / "val" / "images" / fields[0], number[fields[1]]))
    if not train or not test:
        raise ValueError(f"{found} has {len(train)} training and {len(test)} validation images")
    classes = len(names)
    return TrainTest(_part(train, classes), _part(test, classes), "TinyImageNet-200")


def _part(images: Sequence[tuple[Path, int]], classes: int) -> Classification:
    from PIL import Image  # the other loaders need none

    x = np.empty((len(images), 3, _SIDE, _SIDE), np.float32)
    for i, (path, _) in enumerate(images):
        with Image.open(path) as file:
            pixels = np.asarray(file.convert("RGB"), np.float32)
        if pixels.shape != (_SIDE, _SIDE, 3):
            raise ValueError(f"{path} is {pixels.shape[1]} by {pixels.shape[0]}, not 64 by 64")
        x[i] = np.moveaxis(pixels, -1, 0) / 255
    return Classification(x, np.array([y for _, y in images], np.int32), classes)
