"""Selective L2: weight decay only of parameters with a small effect on the loss."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from igr.checks import Number
from igr.transforms.decay import decay_transformation, decay_value_and_grad
from igr.transforms.hyperparameters import ScalarOrSchedule, at_count, require_number, sgd
from igr.transforms.losses import require_value_fn
from igr.transforms.metric_product import hessian_theta
from igr.transforms.partitioned import Partitioned


def selective_l2_sgd(
    learning_rate: ScalarOrSchedule,
    weight_decay: ScalarOrSchedule,
    threshold: Number | jax.Array,
    layers: PyTree | Callable[[PyTree], PyTree] | None = None,
    momentum: Number | jax.Array | None = None,
    nesterov: bool = False,
    mask: PyTree | Callable[[PyTree], PyTree] | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""The Selective L2 learning rule: `optax.sgd`, then `selective_decay`.

        theta <- theta - alpha g - lambda theta   where |H theta| < omega max |H theta|,
        theta <- theta - alpha g                  elsewhere.

    As in Table 4.1 the rate lambda is not multiplied by the learning rate alpha.

    Args:
        learning_rate: The step alpha, a scalar or a schedule.
        weight_decay: The rate lambda, a scalar or a schedule.
        threshold: The threshold omega.
        layers: As in `selective_decay`.
        momentum: As in `optax.sgd`; the decay does not enter the momentum.
        nesterov: As in `optax.sgd`.
        mask: As in `selective_decay`.

    Returns:
        A transformation whose `update` needs `params` and the extra argument `value_fn`. Under
        `optax.inject_hyperparams` declare `static_args=("layers", "mask")`.

    Raises:
        ValueError: If `learning_rate` is not positive and finite, or as `selective_decay`.

    >>> import jax, jax.numpy as jnp, optax
    >>> loss = lambda w: (100 * w[0] ** 2 + w[1] ** 2) / 2
    >>> optimizer, w = selective_l2_sgd(0.01, 0.5, threshold=0.1), jnp.array([1.0, 2.0])
    >>> state = optimizer.init(w)
    >>> updates, state = optimizer.update(jax.grad(loss)(w), state, w, value_fn=loss)
    >>> print(updates)
    [-1.   -1.02]

    References:
        Jarvis, "Generalizing Regularization of Neural Networks to Correlated Parameter Spaces"
        (2021), Table 4.1, row "Selective L2".
    """
    return optax.chain(
        sgd(learning_rate, momentum, nesterov),
        selective_decay(weight_decay, threshold, layers, mask),
    )


def selective_decay(
    weight_decay: ScalarOrSchedule,
    threshold: Number | jax.Array,
    layers: PyTree | Callable[[PyTree], PyTree] | None = None,
    mask: PyTree | Callable[[PyTree], PyTree] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Subtracts weight_decay * theta from the updates where |H theta| < threshold * max |H theta|.

    The maximum is taken over the layer of each parameter. The updates are those that
    `optax.apply_updates` adds: **place it after the learning rate**. The inequality is strict: a
    threshold of 0 decays nothing, nor does a layer in which H theta vanishes; a threshold above 1
    decays everything else. Accumulate gradients as with `metric_decay`.

    Args:
        weight_decay: The rate, at least 0, a scalar or a schedule; not multiplied by the learning
            rate.
        threshold: At least 0.
        layers: The layers, by default every leaf for itself: a pytree of labels (strings or
            integers), of the structure of params or a prefix of it, or a function of params that
            returns one; leaves with the same label share a maximum.
        mask: Which leaves decay, in the same forms, with bools. The other leaves count as
            constants of the loss, and are in no maximum.

    Returns:
        A transformation whose `update` needs `params` and the extra argument `value_fn`
        (`params -> scalar`), and tolerates further ones. The updates keep their dtypes. Under
        `optax.inject_hyperparams` declare `static_args=("layers", "mask")`.

    Raises:
        ValueError: If `weight_decay` or `threshold` is negative or not finite; on `update`, if
            params or `value_fn` are missing, `layers` or `mask` do not fit, or `MaskedNode`s stand
            in the trees.

    >>> import jax.numpy as jnp
    >>> rule, w = selective_decay(0.5, threshold=0.1), jnp.array([1.0, 2.0])
    >>> loss = lambda w: (100 * w[0] ** 2 + w[1] ** 2) / 2  # H theta = (100, 2)
    >>> print(rule.update(0 * w, rule.init(w), w, value_fn=loss)[0])
    [ 0. -1.]

    References:
        Jarvis, "Generalizing Regularization of Neural Networks to Correlated Parameter Spaces"
        (2021), Table 4.1, row "Selective L2", and section 4.3.
    """
    decay = _decay_of("selective_decay", weight_decay, threshold, layers, mask)
    return decay_transformation("selective_decay", decay)


def selective_value_and_grad(
    value_fn: Callable[..., Any],
    rate: ScalarOrSchedule,
    threshold: Number | jax.Array,
    layers: PyTree | Callable[[PyTree], PyTree] | None = None,
    mask: PyTree | Callable[[PyTree], PyTree] | None = None,
    *,
    has_aux: bool = False,
) -> Callable[..., tuple[Any, PyTree]]:
    """The loss and its gradient plus the decay of `selective_decay`, as a function.

    The gradient is g + rate * theta where |H theta| < threshold * max |H theta|, and g elsewhere.
    It is for training loops that cannot pass `value_fn` to the optimizer.

    `optax.sgd(alpha)` on this gradient with rate = lambda / alpha takes the steps of
    `selective_l2_sgd(alpha, lambda, threshold)`; with momentum or Adam the two differ, as L2
    regularization and decoupled weight decay do.

    Args:
        value_fn: The loss: `(params, *args, **kwargs) -> scalar`, or with `has_aux` a pair of that
            scalar and anything else.
        rate: The factor of theta, a scalar or a schedule.
        threshold: As in `selective_decay`.
        layers: As in `selective_decay`.
        mask: As in `selective_decay`.
        has_aux: As in `jax.value_and_grad`.

    Returns:
        A function as `igr.transforms.metric_value_and_grad` returns, with the plain loss.

    Raises:
        ValueError: As `selective_decay`.

    >>> import jax.numpy as jnp
    >>> loss = lambda w: (100 * w[0] ** 2 + w[1] ** 2) / 2
    >>> print(selective_value_and_grad(loss, 0.5, threshold=0.1)(jnp.array([1.0, 2.0]))[1])
    [100.   3.]
    """
    decay = _decay_of("selective_value_and_grad", rate, threshold, layers, mask, name="rate")
    return decay_value_and_grad("selective_value_and_grad", value_fn, decay, has_aux)


def insignificant(
    leaves: Partitioned,
    chosen: list[bool],
    value_fn: Callable[[Any], Any],
    threshold: Any,
    layers: PyTree | Callable[[PyTree], PyTree] | None,
) -> list[Array]:
    """The parameters where |H theta| < threshold * max |H theta|, and zeros elsewhere.

    Where H theta is NaN the result is NaN, which the comparison would hide.
    """
    sizes = [jnp.abs(p) for p in hessian_theta(leaves, chosen, value_fn)]
    names = _layer_names(leaves, layers)
    largest: dict[Hashable, Array] = {}
    for name, size, c in zip(names, sizes, chosen, strict=True):
        if c and size.size:
            top = jnp.max(size)
            largest[name] = jnp.maximum(largest[name], top) if name in largest else top
    return [
        jnp.where(size < threshold * largest[name], p, jnp.where(jnp.isnan(size), size, 0))
        if c and size.size
        else jnp.zeros_like(p)
        for name, size, c, p in zip(names, sizes, chosen, leaves.params, strict=True)
    ]


def require_threshold(threshold: Any) -> Any:
    """Returns the threshold, checked to be a finite number of at least 0."""
    return require_number("threshold", threshold, at_least=0.0, schedule=False)


def _decay_of(
    rule: str, weight_decay: Any, threshold: Any, layers: Any, mask: Any, name: str = "weight_decay"
):
    weight_decay = require_number(name, weight_decay, at_least=0.0)
    threshold = require_threshold(threshold)

    def decay(leaves: Partitioned, count: Any, extra: Mapping[str, Any]) -> list[Array]:
        value_fn = require_value_fn(
            rule, extra.get("value_fn"), "igr.transforms.selective_value_and_grad"
        )
        factor = at_count(name, weight_decay, count)
        kept = insignificant(leaves, leaves.masked(mask), value_fn, threshold, layers)
        return [factor * p for p in kept]

    return decay


def _layer_names(leaves: Partitioned, layers: Any) -> list[Hashable]:
    """The layer of every trained leaf: its label in `layers`, or by default the leaf itself."""
    if layers is None:
        return list(range(len(leaves.params)))
    labels = leaves.labels(layers, "layers")
    for label in labels:
        if isinstance(label, jax.Array | np.ndarray) or not isinstance(label, Hashable):
            raise ValueError(
                "layers must hold labels (strings or integers), one for each leaf or subtree of "
                f"params; it holds {label!r}. Under optax.inject_hyperparams a callable layers is "
                "taken for a schedule unless it is declared: static_args=('layers',)."
            )
    return labels
