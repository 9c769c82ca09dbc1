"""Drawn textures of many classes: a stand-in for small photographs where none are at hand."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from analysis.data.examples import Classification, TrainTest


def textures(
    classes: int, train: int, test: int, *, side: int = 8, noise: float = 0.5, seed: int = 0
) -> TrainTest[Classification]:
    """Gratings: each class has a direction, a wavelength and two colours.

    In every image the phase is random, the direction turned by some degrees, the contrast of its
    own, and there is noise. What is learned from them is no statement about photographs.

    Args:
        classes: How many there are.
        train: Training images of each class.
        test: Test images of each class.
        side: The side of an image in pixels.
        noise: The standard deviation of what is added to every pixel, where gratings have about 1.
        seed: Of the images; classes of one number are the same whatever the seed.

    Returns:
        float32 images (3, side, side) and their classes, in turns.

    Raises:
        ValueError: If a size is not positive.

    >>> data = textures(3, 2, 1, side=4)
    >>> data.train.x.shape, data.train.y.tolist(), data.source
    ((6, 3, 4, 4), [0, 1, 2, 0, 1, 2], 'drawn textures of 3 classes (a stand-in for photographs)')
    """
    if min(classes, train, test, side) < 1:
        raise ValueError(
            f"classes, train, test and side must be positive; got {classes}, {train}, {test}, "
            f"{side}"
        )
    of_class, rng = np.random.default_rng(classes), np.random.default_rng(seed)
    direction = np.pi * np.arange(classes) * (np.sqrt(5) - 1) / 2
    wavelength = of_class.uniform(2.5, 6.0, classes)
    ground, colour = of_class.normal(size=(2, classes, 3)) / 2
    number = classes * (train + test)
    y = np.arange(number) % classes
    angle = direction[y] + rng.normal(0, 0.2, number)
    phase, contrast = rng.uniform(0, 2 * np.pi, number), rng.uniform(0.5, 1.5, number)
    wave = _waves(angle, 2 * np.pi / wavelength[y], phase, side)
    x = ground[y][:, :, None, None] + (contrast[:, None] * colour[y])[:, :, None, None] * wave
    x = (x + rng.normal(0, noise, x.shape)).astype(np.float32)
    cut = classes * train
    first, rest = (Classification(x[part], y[part], classes) for part in (np.s_[:cut], np.s_[cut:]))
    source = f"drawn textures of {classes} classes (a stand-in for photographs)"
    return TrainTest(first, rest, source)


def _waves(
    angle: Float[np.ndarray, " n"],
    frequency: Float[np.ndarray, " n"],
    phase: Float[np.ndarray, " n"],
    side: int,
) -> Float[np.ndarray, "n 1 side side"]:
    pixels = np.arange(side)
    along = np.cos(angle)[:, None, None] * pixels + np.sin(angle)[:, None, None] * pixels[:, None]
    turned = frequency[:, None, None] * along + phase[:, None, None]
    return np.sqrt(2) * np.sin(turned)[:, None]
