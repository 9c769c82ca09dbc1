"""Winsorized descent: clip outlying examples in each coordinate before averaging."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from igr.checks import Number, check_number
from igr.meshes import on_any_mesh
from igr.per_example.sorting_network import reduce_sorted
from igr.transforms.hyperparameters import ScalarOrSchedule, require_static, sgd
from igr.transforms.robust.example_updates import over_examples


def winsorized_sgd(
    learning_rate: ScalarOrSchedule,
    percentile: Number,
    momentum: Number | jax.Array | None = None,
    nesterov: bool = False,
    mask: PyTree | Callable[[PyTree], PyTree] | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Winsorized (stochastic) gradient descent: `winsorize`, then `optax.sgd`.

        theta^(j) <- theta^(j) - (h / n) sum_i clip(g_i^(j), l^(j), u^(j)),

    l^(j) and u^(j) the c-th and (100 - c)-th percentile of coordinate j over the examples.

    Args:
        learning_rate: The step h, a scalar or a schedule.
        percentile: The level c of winsorization, in [0, 50].
        momentum: As in `optax.sgd`.
        nesterov: As in `optax.sgd`.
        mask: As in `winsorize`.

    Returns:
        A transformation whose `update` takes gradients with a leading example axis.

    Raises:
        ValueError: If `learning_rate` is not positive and finite, or `percentile` outside [0, 50].

    >>> import jax.numpy as jnp
    >>> optimizer, params = winsorized_sgd(0.1, percentile=25), jnp.array([0.0])
    >>> gradients = jnp.array([[1.0], [2.0], [3.0], [4.0], [100.0]])  # five examples
    >>> updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    >>> print(updates)
    [-0.3]

    References:
        Walker, "Appealing to Gradients to Investigate Neural Network Generalization" (2023),
        section 5.5.1; Chatterjee and Zielinski, "On the Generalization
        Mystery in Deep Learning" (2022).
    """
    return optax.chain(winsorize(percentile, mask), sgd(learning_rate, momentum, nesterov))


def winsorize(
    percentile: Number, mask: PyTree | Callable[[PyTree], PyTree] | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""Averages gradients over examples after clipping each coordinate between two percentiles.

    For every coordinate, values below the c-th percentile over the examples count as that
    percentile, values above the (100 - c)-th as that one. c = 0 is the mean, c = 50 the median.
    Percentiles are interpolated linearly, as numpy does by default. NaNs are not hidden: a
    coordinate with a NaN in any example becomes NaN. Infinities are outliers like others.

    From the loss itself, `winsorized_gradient` gives the same result without holding the gradients
    of all examples for dense layers.

    Place it first in a chain; what follows sees ordinary gradients. To accumulate gradients,
    winsorize each micro-batch and average the results: `optax.chain(winsorize(c),
    optax.MultiSteps(optimizer, k) .gradient_transformation())`; the other way round,
    `MultiSteps(chain(winsorize(c), ...))`, cannot work, because the accumulator has no example
    axis.

    Args:
        percentile: The level c in [0, 50], a Python number. Under `optax.inject_hyperparams`
            declare it: `static_args=("percentile", "mask")`.
        mask: Which leaves are winsorized, the others being averaged: a pytree of bools, of the
            structure of params or a prefix of it, or a function that returns one, given shapes and
            dtypes like those of params.

    Returns:
        A transformation with the contract of `optax.contrib.differentially_private_aggregate`:
        `update` takes updates with a leading example axis and returns updates like params, in the
        same dtypes. Where it is given params it checks the shapes.

    Raises:
        ValueError: If `percentile` is outside [0, 50] or not a Python number; on `update`, if the
            updates have no common leading axis (say, already averaged) or hold `MaskedNode`s.

    >>> import jax.numpy as jnp
    >>> rule = winsorize(50)
    >>> print(rule.update({"w": jnp.array([[1.0, 5.0], [2.0, 6.0], [9.0, 0.0]])}, rule.init(0))[0])
    {'w': Array([2., 5.], dtype=float64)}

    References:
        Walker, "Appealing to Gradients to Investigate Neural Network Generalization" (2023),
        section 5.5.1.
    """
    level = require_percentile(percentile)
    return over_examples("winsorize", lambda leaf: winsorized_mean(leaf, level), mask)


@on_any_mesh(like=0)
@partial(jax.jit, static_argnames="level")  # compiled once where the step itself is not
def winsorized_mean(examples: Float[Array, "n ..."], level: Fraction) -> Float[Array, "..."]:
    """The mean over the leading axis after clipping each coordinate at its percentiles."""
    if level == 0:
        return jnp.mean(examples, axis=0)
    return reduce_sorted(mean_of_clipped(level, examples.shape[0]), examples)


def mean_of_clipped(level: Fraction, n: int) -> Callable[[Float[Array, "n b"]], Float[Array, " b"]]:
    """A function from n sorted values to their mean after clipping at the percentiles."""
    # numpy's linear definition: the percentile stands at `position` among the n sorted values.
    position = level / 100 * (n - 1)
    k, fraction = int(position), float(position % 1)
    clipped = k + (fraction > 0)  # so many values lie below the one, and above the other

    def reduce(ordered: Float[Array, "n b"]) -> Float[Array, " b"]:
        low, high = ordered[k], ordered[n - 1 - k]
        if fraction > 0:
            low = low + fraction * (ordered[k + 1] - low)
            high = high + fraction * (ordered[n - 2 - k] - high)
        kept = jnp.sum(ordered[clipped : n - clipped], axis=0)
        return (clipped * (low + high) + kept) / n

    return reduce


def require_percentile(percentile: Any) -> Fraction:
    """The level as a fraction, floats read as decimals: 0.1 is 1/10.

    Raises:
      TypeError: If it is no Python number.
      ValueError: If it is outside [0, 50].
    """
    require_static("percentile", percentile)
    check_number("percentile", percentile, at_least=0, at_most=50)
    if isinstance(percentile, int | Fraction):
        return Fraction(percentile)
    return Fraction(str(getattr(percentile, "item", lambda: percentile)()))
