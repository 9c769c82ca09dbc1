"""TinyImageNet's folder as it is published, made up in small, and the textures that stand in."""

import numpy as np
import pytest
from PIL import Image

from analysis.data import textures, tiny_imagenet


@pytest.fixture
def folder(tmp_path):
    """Two classes, three training images each, one of them grey; three that validate."""
    base = tmp_path / "tiny-imagenet-200"
    rng = np.random.default_rng(0)
    (base / "val/images").mkdir(parents=True)
    (base / "wnids.txt").write_text("n02\nn01\n")
    for name, level in (("n01", 40), ("n02", 200)):
        images = base / "train" / name / "images"
        images.mkdir(parents=True)
        for i in range(3):
            pixels = (level + rng.integers(0, 9, (64, 64, 3))).astype(np.uint8)
            image = Image.fromarray(pixels)
            (image.convert("L") if i == 2 else image).save(images / f"{name}_{i}.JPEG")
    for i in range(3):
        Image.new("RGB", (64, 64), (255, 0, 0)).save(base / f"val/images/val_{i}.JPEG")
    notes = [f"val_{i}.JPEG\t{'n01' if i else 'n02'}\t0\t0\t62\t62" for i in range(3)]
    (base / "val/val_annotations.txt").write_text("\n".join(notes) + "\n")
    return base


def test_the_folder_is_read_and_classes_are_in_its_order(folder, monkeypatch):
    monkeypatch.setenv("IGR_DATA", str(folder.parent))
    data = tiny_imagenet()
    assert data.train.x.shape == (6, 3, 64, 64)
    assert data.train.y.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.test.y.tolist() == [0, 1, 1]
    means = data.train.x.mean(axis=(1, 2, 3))
    np.testing.assert_allclose(means, [204 / 255] * 3 + [44 / 255] * 3, atol=0.01)
    np.testing.assert_allclose(data.test.x.mean(axis=(0, 2, 3)), [1, 0, 0], atol=0.01)


def test_what_is_not_there_or_wrong_is_named(folder, monkeypatch):
    monkeypatch.delenv("IGR_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=r"tiny-imagenet-200\.zip"):
        tiny_imagenet()
    notes = folder / "val/val_annotations.txt"
    notes.write_text("val_0.JPEG\tn09\n")
    with pytest.raises(ValueError, match="line 1: expected an image and one of 2 classes"):
        tiny_imagenet(folder)
    notes.write_text("val_0.JPEG\tn01\n")
    Image.new("RGB", (32, 64)).save(folder / "val/images/val_0.JPEG")
    with pytest.raises(ValueError, match="is 32 by 64, not 64 by 64"):
        tiny_imagenet(folder)


def test_textures_have_their_classes_wavelength_and_colours():
    data = textures(3, 200, 4, side=16, noise=0.0)
    assert len(data.train) == 600
    assert len(data.test) == 12
    again = textures(3, 200, 4, side=16, noise=0.0, seed=1)
    assert not np.array_equal(data.train.x, again.train.x)
    for c in range(3):  # a class has the same ground whatever the seed
        grounds = [part.x[part.y == c].mean(axis=(0, 2, 3)) for part in (data.train, again.train)]
        np.testing.assert_allclose(*grounds, atol=0.1)
        moved = data.train.x[data.train.y == c] - grounds[0][:, None, None]
        colours = moved.transpose(0, 2, 3, 1).reshape(-1, 3)
        values = np.linalg.svd(colours, compute_uv=False)
        assert values[1] < 0.2 * values[0]  # one colour swings about the ground
    with pytest.raises(ValueError, match="must be positive"):
        textures(0, 1, 1)
