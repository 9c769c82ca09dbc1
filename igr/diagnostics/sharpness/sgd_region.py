"""Which minima SGD can keep: a region in the plane of sharpness and non-uniformity."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from igr.checks import Count, check_count, check_numbers, check_step
from igr.shown import short, table


class SGDRegion(NamedTuple):
    """The minima that SGD can keep, by their sharpness a and non-uniformity s.

    Attributes:
        learning_rate: eta.
        noise: (n - B) / (B (n - 1)): 1 for single examples, 0 for the full batch.
        sharpness_limit: 2 / eta.
        non_uniformity_limit: 1 / (eta sqrt(noise)); infinite for the full batch.
    """

    learning_rate: Float[Array, ""]
    noise: Float[Array, ""]
    sharpness_limit: Float[Array, ""]
    non_uniformity_limit: Float[Array, ""]

    __repr__ = short
    _repr_html_ = table

    def allows(self, sharpness: Any, non_uniformity: Any) -> Bool[Array, "..."]:
        """Whether minima meet the necessary condition of Remark 2.5: those outside cannot be kept.

        Args:
            sharpness: a, of any shape.
            non_uniformity: s, of the same.
        """
        a = jnp.asarray(check_numbers("sharpness", sharpness))
        s = jnp.asarray(check_numbers("non_uniformity", non_uniformity))
        inside = (a >= 0) & (a <= self.sharpness_limit)
        return inside & (s >= 0) & (s <= self.non_uniformity_limit)

    def growth(self, sharpness: Any, non_uniformity: Any) -> Float[Array, "..."]:
        """(1 - eta a)^2 + eta^2 noise s^2, of which Theorem 2.4 asks that it be at most 1.

        With one parameter this is exactly by what E (w - w*)^2 is multiplied in a step, and the
        condition necessary and sufficient. With more it is the growth along a direction in which
        the Hessian has the eigenvalue a and Sigma the eigenvalue s^2; `igr.curvature.sgd_stability`
        has that of the theorem.

        Args:
            sharpness: a, of any shape.
            non_uniformity: s, of the same.
        """
        a = jnp.asarray(check_numbers("sharpness", sharpness))
        s = jnp.asarray(check_numbers("non_uniformity", non_uniformity))
        return (1 - self.learning_rate * a) ** 2 + self.noise * (self.learning_rate * s) ** 2

    def boundary(self, sharpness: Any) -> Float[Array, "..."]:
        """The largest s at which growth is 1, for each a: half an ellipse about a = 1 / eta.

        NaN where no s would do, outside 0 <= a <= 2 / eta; infinite inside for the full batch.

        Args:
            sharpness: a, of any shape.
        """
        a = jnp.asarray(check_numbers("sharpness", sharpness))
        rest = 2 - self.learning_rate * a
        # Root by root: the square may be out of the range of the dtype.
        return jnp.sqrt(a) * jnp.sqrt(rest / (self.learning_rate * self.noise))


def sgd_region(learning_rate: Any, batch_size: Count, num_examples: Count) -> SGDRegion:
    """Which minima SGD with this learning rate and batch size can keep.

    Theorem 2.4 and Remark 2.5 of "Appealing to gradients to investigate neural network
    generalization", after Wu, Ma and E, "How SGD selects the global minima in over-parameterized
    learning" (2018): a smaller batch lets SGD keep only minima that fit the examples more evenly,
    a larger learning rate only flatter ones. Find a and s of a minimum with
    `igr.curvature.sgd_stability`.

    Args:
        learning_rate: eta.
        batch_size: B, drawn without replacement.
        num_examples: n.

    Returns:
        An `SGDRegion`, whose methods take arrays of a and s.

    Raises:
        ValueError: If the learning rate is not positive and finite, there are fewer than two
            examples, or `batch_size` is not between 1 and n.
        TypeError: If a number of examples is not an integer.

    >>> region = sgd_region(0.1, batch_size=1, num_examples=100)
    >>> float(region.sharpness_limit), float(region.non_uniformity_limit)
    (20.0, 10.0)
    >>> region.allows([10.0, 10.0, 30.0], [5.0, 15.0, 5.0]).tolist()
    [True, False, False]
    """
    eta, noise = _checked(learning_rate, batch_size, num_examples)
    return SGDRegion(eta, noise, 2 / eta, 1 / (eta * jnp.sqrt(noise)))


def sgd_learning_rate_limit(
    sharpness: Any, non_uniformity: Any, batch_size: Count, num_examples: Count
) -> Float[Array, "..."]:
    """The largest learning rate at which SGD keeps a minimum of one parameter: 2a / (a^2 + r s^2).

    r = (n - B) / (B (n - 1)). Theorem 2.4 solved for eta, with a and s along one direction; 2 / a
    for gradient descent.

    Args:
        sharpness: a, positive, of any shape.
        non_uniformity: s, of the same.
        batch_size: B.
        num_examples: n.

    Raises:
        ValueError: As `sgd_region`; if a sharpness is not positive.

    >>> print(sgd_learning_rate_limit(4.0, 2.0, batch_size=1, num_examples=50))
    0.4
    """
    _, noise = _checked(1.0, batch_size, num_examples)
    a = jnp.asarray(check_numbers("sharpness", sharpness))
    s = jnp.asarray(check_numbers("non_uniformity", non_uniformity))
    if not isinstance(a, Tracer) and not bool(jnp.all(a > 0)):
        raise ValueError(f"sharpness must be positive; got {sharpness}.")
    return 2 / (a + noise * s * (s / a))  # the squares may be out of the range of the dtype


def _checked(learning_rate: Any, batch_size: Count, num_examples: Count) -> tuple[Array, Array]:
    """eta and (n - B) / (B (n - 1))."""
    learning_rate = check_step("learning_rate", learning_rate)
    n = check_count("num_examples", num_examples, 2)
    size = check_count("batch_size", batch_size, 1)
    if size > n:
        raise ValueError(
            f"batch_size must be at most the number of examples, {n}; got {batch_size}."
        )
    return jnp.asarray(learning_rate, float), jnp.asarray((n - size) / (size * (n - 1)), float)
