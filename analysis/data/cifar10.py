"""CIFAR-10, from the binary version or from an npz."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from analysis.data.examples import Classification, TrainTest
from analysis.data.folder import data_folder

_SHAPE = (3, 32, 32)
_RECORD = 1 + 3 * 32 * 32
_BATCHES = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
_HELP = (
    "Put the binary version (data_batch_1.bin to data_batch_5.bin, test_batch.bin) or an npz with "
    "x_train, y_train, x_test and y_test in a folder and set IGR_DATA to it, or give its path"
)


def cifar10(path: str | Path | None = None) -> TrainTest[Classification]:
    """Colour images of ten kinds of things (Krizhevsky 2009).

    Args:
        path: A folder with the binary version, or an npz of uint8 images (n, 32, 32, 3) or
            (n, 3, 32, 32): with `x_train`, `y_train`, `x_test`, `y_test`, or with `x`, `y`,
            `train_idx`, `test_idx`. By default the binary version in the folder `IGR_DATA` (or in
            `cifar10` or `cifar-10-batches-bin` below it), else the largest npz there with "cifar"
            in its name.

    Returns:
        float32 images in [0, 1] of shape (3, 32, 32); `source` names the file.

    Raises:
        FileNotFoundError: If there is no such file: says what to put where.
        ValueError: If a file is not what it says.
    """
    found = Path(path) if path is not None else _found()
    if found is None or not found.exists():
        raise FileNotFoundError(f"CIFAR-10 is not at {path or 'IGR_DATA'}. {_HELP}")
    return _from_binary(found) if found.is_dir() else _from_npz(found)


def _found() -> Path | None:
    folder = data_folder()
    if folder is None:
        return None
    places = [folder, folder / "cifar10", folder / "cifar-10-batches-bin"]
    for place in places:
        if (place / _BATCHES[0]).is_file():
            return place
    archives = sorted({p for place in places[:2] for p in place.glob("*cifar*.npz")})
    return max(archives, key=lambda archive: archive.stat().st_size, default=None)


def _from_binary(folder: Path) -> TrainTest[Classification]:
    missing = [name for name in (*_BATCHES, "test_batch.bin") if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} has no {', '.join(missing)}. {_HELP}")
    train = np.concatenate([_records(folder / name) for name in _BATCHES])
    test = _records(folder / "test_batch.bin")
    return TrainTest(
        *(_part(part[:, 1:].reshape(-1, *_SHAPE), part[:, 0], folder) for part in (train, test)),
        source="CIFAR-10, the binary version",
    )


def _records(path: Path) -> np.ndarray:
    content = np.frombuffer(path.read_bytes(), np.uint8)
    if content.size == 0 or content.size % _RECORD:
        raise ValueError(
            f"{path} holds {content.size} bytes, no multiple of the {_RECORD} of a CIFAR-10 record"
        )
    return content.reshape(-1, _RECORD)


def _from_npz(path: Path) -> TrainTest[Classification]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no npz of plain arrays: {error}") from error
    if {"x_train", "y_train", "x_test", "y_test"} <= arrays.keys():
        parts = [(arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test")]
    elif {"x", "y", "train_idx", "test_idx"} <= arrays.keys():
        which = (arrays["train_idx"], arrays["test_idx"])
        if any(i.dtype.kind not in "iu" or i.min() < 0 or i.max() >= len(arrays["x"])
               for i in which) or np.intersect1d(*which).size:  # fmt: skip
            raise ValueError(f"{path}: train_idx and test_idx must be distinct places in x")
        parts = [(arrays["x"][i], arrays["y"][i]) for i in which]
    else:
        raise ValueError(
            f"{path} holds {', '.join(sorted(arrays))}; expected x_train, y_train, x_test, y_test "
            "or x, y, train_idx, test_idx"
        )
    return TrainTest(*(_part(x, y, path) for x, y in parts), source=f"CIFAR-10, {path.name}")


def _part(images: np.ndarray, labels: np.ndarray, path: Path) -> Classification:
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(
            f"{path}: images must be uint8 in 4 dimensions; got {images.dtype}, {images.shape}"
        )
    if images.shape[1:] == (32, 32, 3):
        images = np.moveaxis(images, -1, 1)
    if images.shape[1:] != _SHAPE or labels.shape != (len(images),):
        raise ValueError(
            f"{path}: images must be (n, 32, 32, 3) or (n, 3, 32, 32) and labels (n,); got "
            f"{images.shape} and {labels.shape}"
        )
    if labels.dtype.kind not in "iu" or labels.max() > 9 or labels.min() < 0:
        raise ValueError(f"{path}: labels must be integers from 0 to 9")
    return Classification(
        np.ascontiguousarray(images, np.float32) / np.float32(255), labels.astype(np.int32), 10
    )
