"""L2 Stopped: weight decay for the first steps, then none, or selective decay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from igr.checks import Count, Number, check_count, is_traced
from igr.transforms.decay import decay_transformation, decay_value_and_grad
from igr.transforms.hyperparameters import ScalarOrSchedule, at_count, require_number, sgd
from igr.transforms.losses import require_value_fn
from igr.transforms.partitioned import Partitioned
from igr.transforms.selective_decay import insignificant, require_threshold


def l2_stopped_sgd(
    learning_rate: ScalarOrSchedule,
    weight_decay: ScalarOrSchedule,
    step: Count | jax.Array,
    momentum: Number | jax.Array | None = None,
    nesterov: bool = False,
    mask: PyTree | Callable[[PyTree], PyTree] | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""The L2 Stopped learning rule: `optax.sgd`, then `decay_until`.

        theta <- theta - alpha g - lambda theta   for the first tau steps,
        theta <- theta - alpha g                  afterwards.

    As in Table 4.1 the rate lambda is not multiplied by the learning rate alpha.

    Args:
        learning_rate: The step alpha, a scalar or a schedule.
        weight_decay: The rate lambda, a scalar or a schedule.
        step: The number tau of steps that decay (the table counts epochs).
        momentum: As in `optax.sgd`; the decay does not enter the momentum.
        nesterov: As in `optax.sgd`.
        mask: As in `decay_until`.

    Returns:
        A transformation whose `update` needs `params`.

    Raises:
        ValueError: If `learning_rate` is not positive and finite, or as `decay_until`.

    >>> import jax.numpy as jnp
    >>> optimizer, w = l2_stopped_sgd(0.25, weight_decay=0.5, step=1), jnp.array([2.0])
    >>> gradient = jnp.array([1.0])
    >>> first, state = optimizer.update(gradient, optimizer.init(w), w)
    >>> second, state = optimizer.update(gradient, state, w)
    >>> print(first, second)
    [-1.25] [-0.25]

    References:
        Jarvis, "Generalizing Regularization of Neural Networks to Correlated Parameter Spaces"
        (2021), Table 4.1, row "L2 Stopped".
    """
    return optax.chain(
        sgd(learning_rate, momentum, nesterov), decay_until(weight_decay, step, mask)
    )


def l2_stopped_selective_sgd(
    learning_rate: ScalarOrSchedule,
    weight_decay: ScalarOrSchedule,
    step: Count | jax.Array,
    threshold: Number | jax.Array,
    layers: PyTree | Callable[[PyTree], PyTree] | None = None,
    momentum: Number | jax.Array | None = None,
    nesterov: bool = False,
    mask: PyTree | Callable[[PyTree], PyTree] | None = None,
    *,
    selective_weight_decay: ScalarOrSchedule | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The L2 Stopped Selective learning rule: `optax.sgd`, then `decay_until_then_selective`.

    As in Table 4.1 the rates are not multiplied by the learning rate.

    Args:
        learning_rate: A scalar or a schedule.
        weight_decay: As in `decay_until_then_selective`.
        step: As in `decay_until_then_selective`.
        threshold: As in `decay_until_then_selective`.
        layers: As in `decay_until_then_selective`.
        momentum: As in `optax.sgd`; the decay does not enter the momentum.
        nesterov: As in `optax.sgd`.
        mask: As in `decay_until_then_selective`.
        selective_weight_decay: As in `decay_until_then_selective`.

    Returns:
        A transformation whose `update` needs `params` and the extra argument `value_fn`. Under
        `optax.inject_hyperparams` declare `static_args=("layers", "mask")`.

    Raises:
        ValueError: If `learning_rate` is not positive and finite, or as
            `decay_until_then_selective`.

    >>> import jax.numpy as jnp
    >>> optimizer, w = l2_stopped_selective_sgd(0.1, 0.5, 1, threshold=0.1), jnp.array([1.0, 2.0])
    >>> loss, gradient = lambda w: (100 * w[0] ** 2 + w[1] ** 2) / 2, jnp.array([100.0, 2.0])
    >>> first, state = optimizer.update(gradient, optimizer.init(w), w, value_fn=loss)
    >>> second, state = optimizer.update(gradient, state, w, value_fn=loss)
    >>> print(first, second)
    [-10.5  -1.2] [-10.   -1.2]

    References:
        Jarvis, "Generalizing Regularization of Neural Networks to Correlated Parameter Spaces"
        (2021), Table 4.1, row "L2 Stopped Selective".
    """
    decay = decay_until_then_selective(
        weight_decay, step, threshold, layers, mask, selective_weight_decay=selective_weight_decay
    )
    return optax.chain(sgd(learning_rate, momentum, nesterov), decay)


def decay_until(
    weight_decay: ScalarOrSchedule,
    step: Count | jax.Array,
    mask: PyTree | Callable[[PyTree], PyTree] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Subtracts weight_decay * theta from the updates in the first `step` steps.

    The updates are those that `optax.apply_updates` adds: **place it after the learning rate**. It
    needs no loss and may stand inside `optax.MultiSteps`, where it counts the steps that are made,
    and inside `optax.masked` and `optax.partition`.

    Args:
        weight_decay: The rate, at least 0, a scalar or a schedule; not multiplied by the learning
            rate.
        step: The first step, counted from 0, that does not decay.
        mask: Which leaves decay: a pytree of bools, of the structure of params or a prefix of it,
            or a function of params that returns one. Under `optax.inject_hyperparams` a callable
            mask has to be declared: `static_args=("mask",)`.

    Returns:
        A transformation whose `update` needs `params`. The updates keep their dtypes.

    Raises:
        ValueError: If `weight_decay` is negative or not finite, or `step` not an integer of at
            least 0; on `update`, if params are missing or the mask does not fit.

    >>> import jax.numpy as jnp
    >>> rule, w = decay_until(0.5, step=1), jnp.array([2.0])
    >>> print(rule.update(0 * w, rule.init(w), w)[0])
    [-1.]

    References:
        Jarvis, "Generalizing Regularization of Neural Networks to Correlated Parameter Spaces"
        (2021), Table 4.1, row "L2 Stopped".
    """
    weight_decay = require_number("weight_decay", weight_decay, at_least=0.0)
    _require_step(step)

    def decay(leaves: Partitioned, count: Any, extra: Mapping[str, Any]) -> list[Array]:
        del extra
        rate = jnp.where(count < step, at_count("weight_decay", weight_decay, count), 0.0)
        return _decayed(leaves, leaves.masked(mask), rate)

    return decay_transformation("decay_until", decay, leaf_by_leaf=True)


def decay_until_then_selective(
    weight_decay: ScalarOrSchedule,
    step: Count | jax.Array,
    threshold: Number | jax.Array,
    layers: PyTree | Callable[[PyTree], PyTree] | None = None,
    mask: PyTree | Callable[[PyTree], PyTree] | None = None,
    *,
    selective_weight_decay: ScalarOrSchedule | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Decays all parameters for the first `step` steps, then only as `selective_decay` does.

    **Place it after the learning rate.** The selective rule begins at t = step, which Table
    4.1 leaves open. Before that the Hessian is not computed. Accumulate gradients as with
    `metric_decay`.

    Args:
        weight_decay: The rate, at least 0, a scalar or a schedule; not multiplied by the learning
            rate.
        step: As in `decay_until`.
        threshold: As in `selective_decay`.
        layers: As in `selective_decay`.
        mask: As in `selective_decay`.
        selective_weight_decay: The rate from `step` on, if another one.

    Returns:
        A transformation whose `update` needs `params` and the extra argument `value_fn`. Under
        `optax.inject_hyperparams` declare `static_args=("layers", "mask")`.

    Raises:
        ValueError: As `decay_until` and `selective_decay`.

    >>> import jax.numpy as jnp
    >>> rule, w = decay_until_then_selective(0.5, 1, threshold=0.1), jnp.array([1.0, 2.0])
    >>> loss = lambda w: (100 * w[0] ** 2 + w[1] ** 2) / 2
    >>> print(rule.update(0 * w, rule.init(w), w, value_fn=loss)[0])
    [-0.5 -1. ]

    References:
        Jarvis, "Generalizing Regularization of Neural Networks to Correlated Parameter Spaces"
        (2021), Table 4.1, row "L2 Stopped Selective".
    """
    rule = "decay_until_then_selective"
    decay = _decay_of(rule, weight_decay, step, threshold, layers, mask, selective_weight_decay)
    return decay_transformation(rule, decay)


def stopped_selective_value_and_grad(
    value_fn: Callable[..., Any],
    rate: ScalarOrSchedule,
    step: Count | jax.Array,
    threshold: Number | jax.Array,
    layers: PyTree | Callable[[PyTree], PyTree] | None = None,
    mask: PyTree | Callable[[PyTree], PyTree] | None = None,
    *,
    selective_rate: ScalarOrSchedule | None = None,
    has_aux: bool = False,
) -> Callable[..., tuple[Any, PyTree]]:
    """The loss and its gradient plus `decay_until_then_selective`'s decay, as a function.

    It is for training loops that cannot pass `value_fn` to the optimizer.

    `optax.sgd(alpha)` on this gradient with rate = lambda / alpha takes the steps of
    `l2_stopped_selective_sgd(alpha, lambda, step, threshold)`.

    Args:
        value_fn: The loss: `(params, *args, **kwargs) -> scalar`, or with `has_aux` a pair of that
            scalar and anything else.
        rate: The factor of theta, a scalar or a schedule.
        step: As in `decay_until`.
        threshold: As in `selective_decay`.
        layers: As in `selective_decay`.
        mask: As in `selective_decay`.
        selective_rate: The rate from `step` on, if another one.
        has_aux: As in `jax.value_and_grad`.

    Returns:
        A function `(params, *args, count, **kwargs) -> (value, grad)` with the plain loss; the
        number of the step, `count`, is needed.

    Raises:
        ValueError: As `decay_until_then_selective`; on the call, if `count` is missing.

    >>> import jax.numpy as jnp
    >>> loss = lambda w: (100 * w[0] ** 2 + w[1] ** 2) / 2
    >>> oracle = stopped_selective_value_and_grad(loss, 0.5, 1, threshold=0.1)
    >>> print(oracle(jnp.array([1.0, 2.0]), count=0)[1], oracle(jnp.array([1.0, 2.0]), count=1)[1])
    [100.5   3. ] [100.   3.]
    """
    rule = "stopped_selective_value_and_grad"
    decay = _decay_of(rule, rate, step, threshold, layers, mask, selective_rate, "rate")
    return decay_value_and_grad(rule, value_fn, decay, has_aux)


def _decay_of(
    rule: str,
    weight_decay: Any,
    step: Any,
    threshold: Any,
    layers: Any,
    mask: Any,
    selective: Any,
    name: str = "weight_decay",
):
    weight_decay = require_number(name, weight_decay, at_least=0.0)
    _require_step(step)
    threshold = require_threshold(threshold)
    if selective is None:
        selective = weight_decay
    selective = require_number(f"selective_{name}", selective, at_least=0.0)

    def decay(leaves: Partitioned, count: Any, extra: Mapping[str, Any]) -> list[Array]:
        value_fn = require_value_fn(
            rule, extra.get("value_fn"), "igr.transforms.stopped_selective_value_and_grad"
        )
        if count is None:
            raise ValueError(f"{rule} needs count=, the number of the step.")
        chosen = leaves.masked(mask)
        kept = jax.lax.cond(
            count < step,
            lambda: _decayed(leaves, chosen, 1.0),
            lambda: insignificant(leaves, chosen, value_fn, threshold, layers),
        )
        rate = jnp.where(
            count < step,
            at_count(name, weight_decay, count),
            at_count(f"selective_{name}", selective, count),
        )
        return [rate * p for p in kept]

    return decay


def _decayed(leaves: Partitioned, chosen: list[bool], rate: Any) -> list[Array]:
    """The decay rate * theta on the chosen leaves, zeros on the others, in theta's dtypes."""
    return [
        (rate * p).astype(p.dtype) if c else jnp.zeros_like(p)
        for p, c in zip(leaves.params, chosen, strict=True)
    ]


def _require_step(step: Any) -> None:
    """Raises unless `step` is a count of at least 0, or a traced integer scalar."""
    if is_traced(step) and step.shape == () and jnp.issubdtype(step.dtype, jnp.integer):
        return
    check_count("step", step, 0)
