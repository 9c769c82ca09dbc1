"""Median of means: the coordinatewise median of the mean gradients of groups of examples."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from igr.checks import Count, Number, check_count
from igr.meshes import on_any_mesh
from igr.per_example.grouped import group_size
from igr.per_example.sorting_network import reduce_sorted
from igr.transforms.hyperparameters import ScalarOrSchedule, require_static, sgd
from igr.transforms.robust.example_updates import over_examples


def median_of_means_sgd(
    learning_rate: ScalarOrSchedule,
    num_groups: Count,
    momentum: Number | jax.Array | None = None,
    nesterov: bool = False,
    mask: PyTree | Callable[[PyTree], PyTree] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Gradient descent on the median of group means: `median_of_means`, then `optax.sgd`.

    Args:
        learning_rate: The step, a scalar or a schedule.
        num_groups: As in `median_of_means`.
        momentum: As in `optax.sgd`.
        nesterov: As in `optax.sgd`.
        mask: As in `median_of_means`.

    Returns:
        A transformation whose `update` takes gradients with a leading axis, of examples or groups.

    Raises:
        ValueError: If `learning_rate` is not positive and finite, or `num_groups` not positive.

    >>> import jax.numpy as jnp
    >>> from igr.per_example import grouped_gradients
    >>> loss = lambda w, x: (w - x) ** 2 / 2
    >>> w, data = jnp.array(0.0), jnp.array([1.0, 1.0, 2.0, 4.0, 0.0, 300.0])
    >>> optimizer = median_of_means_sgd(0.5, num_groups=3)
    >>> gradients = grouped_gradients(loss, w, data, 3)  # -1, -3, -150
    >>> print(optimizer.update(gradients, optimizer.init(w), w)[0])
    1.5

    References:
        Walker, "Appealing to Gradients to Investigate Neural Network Generalization" (2023),
        section 5.5.1, the algorithm at its end.
    """
    return optax.chain(median_of_means(num_groups, mask), sgd(learning_rate, momentum, nesterov))


def median_of_means(
    num_groups: Count, mask: PyTree | Callable[[PyTree], PyTree] | None = None
) -> optax.GradientTransformationExtraArgs:
    """Averages gradients within groups of examples, then takes the median over the groups.

    The n examples are split in consecutive groups of n / num_groups; of an even number of groups
    the median is the mean of the middle two, as numpy has it. Group means as
    `igr.per_example.grouped_gradients(..., num_groups)` returns them are not averaged again (they
    count as n = num_groups examples), and cost no more than that many gradients in memory. One
    group is the mean; as many groups as examples the median of the examples. NaNs are not hidden: a
    coordinate with a NaN becomes NaN.

    Place it first in a chain. To accumulate gradients see `winsorize`: the reduction comes before
    `optax.MultiSteps`.

    Args:
        num_groups: A divisor of the number of examples, a Python int. Under
            `optax.inject_hyperparams` declare it: `static_args=("num_groups", "mask")`.
        mask: Which leaves take the median, the others being averaged; as in `winsorize`.

    Returns:
        A transformation with the contract of `winsorize`.

    Raises:
        ValueError: If `num_groups` is not a positive int; on `update`, if it is above the number of
            examples or does not divide it (no example is dropped in silence), or if the updates
            have no common leading axis or hold `MaskedNode`s.

    >>> import jax.numpy as jnp
    >>> rule = median_of_means(3)
    >>> print(rule.update(jnp.array([1.0, 1.0, 2.0, 4.0, 0.0, 300.0]), rule.init(0))[0])
    3.0

    References:
        Walker, "Appealing to Gradients to Investigate Neural Network Generalization" (2023),
        section 5.5.1, the algorithm at its end.
    """
    require_static("num_groups", num_groups)
    num_groups = check_count("num_groups", num_groups, 1)
    return over_examples(
        "median_of_means",
        lambda leaf: median_of_group_means(leaf, num_groups),
        mask,
        lambda length: group_size(length, num_groups),
    )


@on_any_mesh(like=0)
@partial(jax.jit, static_argnames="num_groups")  # compiled once where the step itself is not
def median_of_group_means(
    examples: Float[Array, "n ..."], num_groups: Count
) -> Float[Array, "..."]:
    """The median of the means of consecutive groups of equal size, in at least float32."""
    size = examples.shape[0] // num_groups
    if size > 1:
        wide = jnp.promote_types(examples.dtype, jnp.float32)
        groups = examples.reshape(num_groups, size, *examples.shape[1:])
        examples = jnp.mean(groups, axis=1, dtype=wide)
    return reduce_sorted(_median, examples)


def _median(ordered: Float[Array, "k b"]) -> Float[Array, " b"]:
    k = ordered.shape[0]
    low, high = ordered[(k - 1) // 2], ordered[k // 2]
    return low if k % 2 else low / 2 + high / 2
