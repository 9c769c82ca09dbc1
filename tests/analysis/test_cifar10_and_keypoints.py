"""CIFAR-10 and facial keypoints, from files of every form that is read."""

import numpy as np
import pytest

from analysis import data

# CIFAR-10


def test_cifar10_binary(folder):
    rng = np.random.default_rng(0)
    records = rng.integers(0, 256, (12, 3073), dtype=np.uint8)
    records[:, 0] = np.arange(12) % 10
    for i in range(5):
        (folder / f"data_batch_{i + 1}.bin").write_bytes(records[2 * i : 2 * i + 2].tobytes())
    with pytest.raises(FileNotFoundError, match=r"has no test_batch\.bin\. Put the binary"):
        data.cifar10()
    (folder / "test_batch.bin").write_bytes(records[10:].tobytes())
    read = data.cifar10()
    assert read.source == "CIFAR-10, the binary version"
    assert read.train.x.shape == (10, 3, 32, 32)
    # The first 1,024 bytes after the label are the red channel, row by row.
    np.testing.assert_allclose(read.train.x[0, 0, 1, 2] * 255, records[0, 1 + 32 + 2])
    np.testing.assert_allclose(read.test.x[1, 2, 31, 31] * 255, records[11, -1])
    np.testing.assert_array_equal(read.test.y, [0, 1])
    (folder / "test_batch.bin").write_bytes(records[10:].tobytes()[:-1])
    with pytest.raises(ValueError, match="no multiple of the 3073"):
        data.cifar10()


def test_cifar10_npz(folder):
    images = np.arange(4 * 32 * 32 * 3).reshape(4, 32, 32, 3).astype(np.uint8)
    labels = np.array([0, 1, 9, 3])
    whole = {"x": images, "y": labels, "train_idx": np.array([0, 3]), "test_idx": np.array([2])}
    np.savez(folder / "my_cifar10.npz", **whole)
    read = data.cifar10()
    assert read.source == "CIFAR-10, my_cifar10.npz"
    np.testing.assert_array_equal(read.train.y, [0, 3])
    np.testing.assert_allclose(read.test.x[0, 1, 4, 5] * 255, images[2, 4, 5, 1])
    parts = {"x_train": images[:3], "y_train": labels[:3], "x_test": images[3:].swapaxes(1, 3),
             "y_test": labels[3:]}  # fmt: skip
    np.savez(folder / "other.npz", **parts)
    np.testing.assert_array_equal(data.cifar10(folder / "other.npz").test.y, [3])

    def refused(says, **changed):
        np.savez(folder / "bad.npz", **{**whole, **changed})
        with pytest.raises(ValueError, match=says):
            data.cifar10(folder / "bad.npz")

    refused("no npz of plain arrays", y=np.array([{}, 1, 2, 3], dtype=object))
    refused("labels must be integers from 0 to 9", y=labels + 8)
    refused("images must be uint8", x=images / 255)
    refused(r"images must be \(n, 32, 32, 3\)", x=images[:, :31])
    refused("must be distinct places in x", test_idx=np.array([0]))
    refused("must be distinct places in x", test_idx=np.array([4]))
    np.savez(folder / "bad.npz", images=images)
    with pytest.raises(ValueError, match="holds images; expected x_train"):
        data.cifar10(folder / "bad.npz")
    np.savez(folder / "a_larger_cifar.npz", **{k: np.repeat(v, 2, 0) for k, v in parts.items()})
    assert data.cifar10().source == "CIFAR-10, a_larger_cifar.npz"


def test_cifar10_nowhere(folder):
    with pytest.raises(FileNotFoundError, match=r"not at IGR_DATA\. Put the binary version"):
        data.cifar10()


# Facial keypoints


def keypoint_row(value, image="7", points=30):
    return ",".join([str(value)] * points + [" ".join([image] * 96 * 96)])


def test_keypoints_csv(folder):
    header = ",".join([f"c{i}" for i in range(30)] + ["Image"])
    incomplete = ",".join([""] * 30 + [" ".join(["7"] * 96 * 96)])
    path = folder / "training.csv"

    def write(*rows):
        path.write_text("\n".join([header, *rows]) + "\n")

    write(*(keypoint_row(v) for v in (1.5, 20, 96)), incomplete)
    read = data.keypoints(test_share=1 / 3)
    assert read.train.x.shape == (2, 1, 96, 96)
    assert read.test.y.shape == (1, 30)
    assert {1.5, 20, 96} == set(np.concatenate([read.train.y, read.test.y])[:, 0])
    np.testing.assert_allclose(read.train.x, 7 / 255, rtol=1e-6)
    for row, says in (
        (keypoint_row(97), "line 2: a point outside the image"),
        (keypoint_row(1, image="256"), "line 2: no image of 96 by 96"),
        (keypoint_row(1, points=29), "line 2: 30 fields, not 31"),
        (keypoint_row("x"), "line 2: could not convert"),
    ):
        write(row)
        with pytest.raises(ValueError, match=says):
            data.keypoints()
    path.write_text("a,b\n")
    with pytest.raises(ValueError, match="has 2 columns"):
        data.keypoints()
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"Download training\.csv .* stand-in"):
        data.keypoints()


def test_drawn_keypoints_are_where_they_are_said_to_be():
    drawn = data.drawn_keypoints(12, side=48, seed=1)
    assert "stand-in" in drawn.source
    assert drawn.train.x.min() >= 0
    assert drawn.train.x.max() <= 1
    nose = drawn.train.y[:, 20:22].astype(int)  # the brightest spot, the 11th point
    around = [
        x[0, b - 2 : b + 3, a - 2 : a + 3].max()
        for x, (a, b) in zip(drawn.train.x, nose, strict=True)
    ]
    assert np.all(np.array(around) > np.median(drawn.train.x, axis=(1, 2, 3)) + 0.15)
