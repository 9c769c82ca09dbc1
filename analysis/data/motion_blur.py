"""Motion blur as in MNIST-C."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from analysis.data.examples import Classification, TrainTest

# Radius and sigma of the severities 1 to 5 (Mu and Gilmer 2019).
SEVERITIES = ((10, 3.0), (15, 5.0), (15, 8.0), (15, 12.0), (20, 15.0))


def motion_blur(
    data: TrainTest[Classification], severity: int = 1, seed: int = 0
) -> TrainTest[Classification]:
    """Every image blurred along a direction of its own, as in the `motion_blur` of MNIST-C.

    Args:
        data: Images of shape (channels, height, width).
        severity: 1 to 5.
        seed: Of the directions, uniform in (-45, 45) degrees.

    Returns:
        The same images, blurred, in the dtype they had.

    Raises:
        ValueError: If the severity is not from 1 to 5 or the examples are no images.

    References:
        Mu and Gilmer, "MNIST-C: A Robustness Benchmark for Computer Vision" (2019).
    """
    if severity not in range(1, len(SEVERITIES) + 1):
        raise ValueError(f"severity must be 1 to {len(SEVERITIES)}; got {severity!r}")
    radius, sigma = SEVERITIES[severity - 1]
    rng = np.random.default_rng(seed)

    def blur(part: Classification) -> Classification:
        if part.x.ndim != 4:
            raise ValueError(
                f"motion blur needs images (channels, height, width); got {part.x.shape[1:]}."
            )
        angles = rng.uniform(-45.0, 45.0, len(part.x))
        return replace(part, x=blurred(part.x, radius, sigma, angles))

    return TrainTest(
        blur(data.train),
        blur(data.test),
        f"{data.source}, motion blur of severity {severity}",
    )


def blurred(
    images: Float[np.ndarray, "n channels height width"],
    radius: float,
    sigma: float,
    degrees: Float[np.ndarray, " n"],
) -> Float[np.ndarray, "n channels height width"]:
    r"""Each image blurred by a one-sided Gaussian along its direction.

        out(y, x) = sum_i k_i in(y + ceil(i sin a - 1/2), x + ceil(i cos a - 1/2)),

    i = 0, ..., 2 ceil(radius), k_i proportional to exp(-i^2 / (2 sigma^2)), edges replicated.

    Args:
        images: Any floating images.
        radius: Half the kernel's length.
        sigma: Its width, in pixels.
        degrees: The direction of each image.

    >>> spot = np.zeros((1, 1, 1, 5)); spot[..., 2] = 1.0
    >>> print(blurred(spot, 1, 1.0, np.zeros(1)).round(2)[0, 0, 0])
    [0.08 0.35 0.57 0.   0.  ]
    """
    i = np.arange(2 * math.ceil(radius) + 1)
    kernel = np.exp(-(i**2) / (2.0 * sigma**2))
    kernel /= kernel.sum()
    angle = np.deg2rad(degrees)[:, None]
    down = np.ceil(i * np.sin(angle) - 0.5).astype(int)
    right = np.ceil(i * np.cos(angle) - 0.5).astype(int)
    channels, height, width = images.shape[1:]
    reach = len(i)  # no shift is longer
    out = np.empty_like(images)
    for image, result, dy, dx in zip(images, out, down, right, strict=True):
        wide = np.pad(image, ((0, 0), (reach, reach), (reach, reach)), mode="edge")
        total = np.zeros((channels, height, width))
        for weight, y, x in zip(kernel, reach + dy, reach + dx, strict=True):
            total += weight * wide[:, y : y + height, x : x + width]
        result[...] = total
    return out
