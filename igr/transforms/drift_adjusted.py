"""The drift-adjusted learning rate, limited by the drift of a step from its gradient flow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from igr.checks import Number
from igr.curvature.vectors import norm, scaled, widened
from igr.forward_mode import linearize
from igr.shown import short, table
from igr.transforms.hyperparameters import require_number
from igr.transforms.losses import require_value_fn
from igr.transforms.masks import reject_masked_nodes
from igr.transforms.partitioned import partitioned


class DriftAdjustedState(NamedTuple):
    """State of `scale_by_drift_adjusted_rate`: the learning rate of the last step, to be logged."""

    learning_rate: Array

    __repr__ = short
    _repr_html_ = table


def drift_adjusted(
    power: Number = 1.0,
    scale: Number = 2.0,
    max_learning_rate: Number = 1.0,
    momentum: Number | None = None,
    nesterov: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Gradient descent with the drift-adjusted learning rate h = scale/(|Hg|/|g|)^power.

    Args:
        power: As in `scale_by_drift_adjusted_rate`.
        scale: As in `scale_by_drift_adjusted_rate`.
        max_learning_rate: As in `scale_by_drift_adjusted_rate`.
        momentum: As in `optax.sgd`: the rate multiplies the gradient, before the memory.
        nesterov: As in `optax.sgd`.

    Returns:
        A transformation whose `update` needs `params` and the extra argument `value_fn`.

    >>> loss = lambda w: 2.0 * jnp.sum(w**2)
    >>> optimizer, w = drift_adjusted(scale=1.0), jnp.array([3.0])
    >>> updates, state = optimizer.update(jax.grad(loss)(w), optimizer.init(w), w, value_fn=loss)
    >>> print(optax.apply_updates(w, updates))  # h = 1/4: at the minimum in one step
    [0.]
    """
    rate = scale_by_drift_adjusted_rate(power, scale, max_learning_rate)
    if momentum is None:
        return optax.chain(rate, optax.scale(-1.0))
    momentum = require_number("momentum", momentum, schedule=False)
    return optax.chain(rate, optax.trace(momentum, nesterov), optax.scale(-1.0))


def scale_by_drift_adjusted_rate(
    power: Number = 1.0, scale: Number = 2.0, max_learning_rate: Number = 1.0
) -> optax.GradientTransformationExtraArgs:
    r"""Multiplies the updates by the drift-adjusted rate h = scale/(|Hg|/|g|)^power.

    A step of gradient descent departs from its gradient flow by (h^2/2) H g, to leading order. A
    large |Hg|/|g| says that the gradient has a component along a sharp direction, in which the step
    is about to oscillate; the sharpness alone does not tell. With power 1 and scale 2 the rate is
    at the stability limit of the curvature along the gradient.

    Both g and H g are taken from `value_fn` at `params`, never from the updates: one more Hessian
    product a step.

    Args:
        power: At least 0; 1/2 gives a rate that varies less than with 1.
        scale: Above 0.
        max_learning_rate: The largest h, above 0, also taken where H g is zero.

    Returns:
        A transformation whose `update(updates, state, params, *, value_fn)` needs `params` and
        `value_fn`, `params -> scalar`, and tolerates further extra arguments. The sign of the
        updates is kept: follow it with `optax.scale(-1.0)`. `state.learning_rate` is the last h.

    Raises:
        ValueError: If an argument is out of its range; on `update`, if params or `value_fn` are
            missing, the loss is not a scalar, or `MaskedNode`s stand in the trees.

    References:
        Rosca, Wu, Qin and Dherin, "On a continuous time model of gradient descent dynamics and
        instability in deep learning" (2023), section 6.
    """
    power = require_number("power", power, at_least=0.0, schedule=False)
    scale = require_number("scale", scale, above=0.0, schedule=False)
    max_learning_rate = require_number(
        "max_learning_rate", max_learning_rate, above=0.0, schedule=False
    )
    rule = "scale_by_drift_adjusted_rate"

    def init_fn(params: PyTree) -> DriftAdjustedState:
        reject_masked_nodes(rule, params)
        return DriftAdjustedState(jnp.zeros([], jnp.float32))

    def update_fn(
        updates: PyTree,
        state: DriftAdjustedState,
        params: PyTree | None = None,
        *,
        value_fn: Callable[[PyTree], Any] | None = None,
        **extra_args: Any,
    ) -> tuple[PyTree, DriftAdjustedState]:
        del extra_args, state
        value_fn = require_value_fn(rule, value_fn, "jax.grad")
        leaves = partitioned(rule, params, updates)
        gradient, hessian, _, _ = linearize(jax.grad(leaves.loss(value_fn)), leaves.params)
        slope = norm(widened(gradient))
        # Of a unit vector: H g of numbers far from one may leave the range of the dtype.
        unit = scaled(jnp.where(slope > 0, 1 / slope, 0), gradient)
        drift = norm(widened(hessian(unit)))
        flat = drift <= jnp.finfo(jnp.float32).tiny
        rate = jnp.minimum(scale / jnp.where(flat, 1.0, drift) ** power, max_learning_rate)
        rate = jnp.where(flat, max_learning_rate, rate).astype(jnp.float32)
        updated = [rate.astype(u.dtype) * u for u in leaves.updates]
        return leaves.updates_tree(updated), DriftAdjustedState(rate)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
