"""The slope of the loss surface, and the share of the implicit penalty in the modified loss."""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from igr.backward_error import methods, modified_equation
from igr.backward_error.implicit_penalty import implicit_penalty
from igr.backward_error.protocols import Method
from igr.backward_error.terms.equation import ElementwiseEquation
from igr.checks import Number, check_step
from igr.curvature.vectors import norm, size, widened
from igr.flows import kinds
from igr.flows.fields.terms import loss_and_penalty
from igr.missing_parts import of_whole
from igr.pytrees import combine, is_trained, partition, require_trained
from igr.shown import short, table
from igr.statistics_beside import reject_statistics


def implicit_gradient_regularizer(
    value_fn: Callable[[PyTree], Any], params: PyTree
) -> Float[Array, ""]:
    """The implicit gradient regularizer R_IG = |grad E|^2 / m of a loss with m parameters.

    Gradient descent follows the gradient flow of E + lambda R_IG with lambda = h m / 4 (Barrett
    and Dherin, "Implicit gradient regularization", 2021, equations 2 to 4).

    Args:
        value_fn: `params -> scalar`, the loss E.
        params: Any pytree with floating leaves; m counts their entries.

    Returns:
        The scalar R_IG, in float32 or the widest dtype of the parameters.

    Raises:
        ValueError: If params have no floating leaf, or the loss is not a real floating scalar.

    >>> import jax.numpy as jnp
    >>> loss = lambda w: w[0] ** 2 + w[1]
    >>> print(implicit_gradient_regularizer(loss, jnp.array([1.0, 5.0])).round(6))
    2.5
    """
    _, slope = _value_and_slope(value_fn, params)
    return (slope / jnp.sqrt(size(require_trained(params)))) ** 2


def loss_surface_slope(value_fn: Callable[[PyTree], Any], params: PyTree) -> Float[Array, ""]:
    """The slope |grad E| of the loss surface, a scalar.

    It is the tangent of the angle between the surface (theta, E(theta)) and the parameter space:
    slope^2 = m R_IG (Barrett and Dherin, 2021, Proposition 3.3 and equation A.18).

    Args:
        value_fn: `params -> scalar`, the loss E.
        params: Any pytree with floating leaves.

    Returns:
        The scalar |grad E|, in float32 or the widest dtype of the parameters.

    Raises:
        ValueError: As `implicit_gradient_regularizer`.

    >>> import jax.numpy as jnp
    >>> print(loss_surface_slope(lambda w: 3 * w[0] - 4 * w[1], jnp.zeros(2)))
    5.0
    """
    return _value_and_slope(value_fn, params)[1]


class ModifiedLossShare(NamedTuple):
    """The loss and the implicit penalty, the two parts of a modified loss, and the latter's share.

    Attributes:
        loss: E.
        penalty: The term that the optimizer's finite steps add at first order in h, relative to the
            weight of E: h/4 |grad E|^2 for gradient descent.
        share: penalty / (loss + penalty).
    """

    loss: Float[Array, ""]
    penalty: Float[Array, ""]
    share: Float[Array, ""]

    __repr__ = short
    _repr_html_ = table


def modified_loss_share(
    value_fn: Callable[[PyTree], Any],
    params: PyTree,
    learning_rate: Any,
    method: Method | None = None,
    *,
    kept: dict[str, PyTree] | None = None,
    t: Number | Array = jnp.inf,
) -> ModifiedLossShare:
    """The share of the implicit penalty in the modified loss that an optimizer follows.

    The modified loss of the method is derived to first order, c0 E + c1 h |grad E|^2, and divided
    by c0, which only changes the speed of the flow: E + h (c1/c0) |grad E|^2. Gradient descent has
    c1/c0 = 1/4 (Barrett and Dherin, 2021, equation 2).

    An adaptive method has a modified loss in the metric of its preconditioner, which adds
    h (1 + b1)/(4 (1 - b1)) sum_i g_i^2/(sqrt(nu_i) + eps) for Adam with its second moment kept.

    Args:
        value_fn: `params -> scalar`, the loss E.
        params: Any pytree with floating leaves.
        learning_rate: h, positive and finite.
        method: From `igr.methods`, with numbers for its parameters; gradient descent by default.
        kept: The states that the method keeps, by name, each like params: {"nu": nu} for Adam.
        t: The time n h for the bias corrections; by default these are 1.

    Returns:
        A `ModifiedLossShare`: loss, penalty, share. A share is NaN where both parts are zero.

    Raises:
        ValueError: As `implicit_gradient_regularizer`; if `learning_rate` is not positive and
            finite, if `kept` does not hold the states that the method keeps, or as
            `igr.transforms.cancel_implicit`.
        NotAGradientError: If the method follows no modified loss at first order.

    >>> import igr, jax.numpy as jnp
    >>> loss = lambda w: jnp.sum(w**2) / 2
    >>> float(modified_loss_share(loss, jnp.array([2.0]), 0.5).penalty)
    0.5
    >>> momentum = igr.methods.heavy_ball(0.5)
    >>> float(modified_loss_share(loss, jnp.array([2.0]), 0.5, momentum).penalty)
    3.0
    """
    learning_rate = check_step("learning_rate", learning_rate)
    method = methods.gradient_descent() if method is None else method
    if set(kept or {}) != set(method.kept):
        raise ValueError(
            f"kept must hold the states that {method.name} keeps, which are "
            f"{', '.join(method.kept) or 'none'}; got {', '.join(kept or {}) or 'none'}."
        )
    found = _of_equation(modified_equation(method, 1), value_fn, params, learning_rate, kept, t)
    if found is not None:
        return found
    weight = implicit_penalty(method)
    value, slope = _value_and_slope(value_fn, params)
    steepness = jnp.asarray(weight * learning_rate * slope, slope.dtype)
    # 1 / (1 + loss / penalty), of which no part leaves the range of the dtype before its time.
    share = 1 / (1 + value / slope / steepness)
    return ModifiedLossShare(value, steepness * slope, share)


@singledispatch
def _of_equation(
    eq: Any, value_fn: Any, params: PyTree, h: Any, kept: dict[str, PyTree] | None, t: Any
) -> ModifiedLossShare | None:
    """The share by the equation's own modified loss; None if a multiple of |grad E|^2 will do."""
    return None


@_of_equation.register
def _(
    eq: ElementwiseEquation,
    value_fn: Any,
    params: PyTree,
    h: Any,
    kept: dict[str, PyTree] | None,
    t: Any,
) -> ModifiedLossShare:
    kinds.check_numbers(eq)
    require_trained(params)
    value, added = loss_and_penalty(eq.modified_loss(), value_fn, h)(
        (params, kept) if eq.kept else params, t
    )
    return ModifiedLossShare(value, added, added / (value + added))


def _value_and_slope(
    value_fn: Callable[[PyTree], Any], params: PyTree
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The loss E and |grad E|, both in float32 or wider."""
    reject_statistics(params)
    trained, constant = partition(params)

    def loss_fn(trained: PyTree) -> Array:
        value = of_whole(value_fn, combine(trained, constant))
        if jnp.ndim(value) != 0 or not is_trained(value):
            kind = f"shape {value.shape}, {value.dtype}" if eqx.is_array(value) else repr(value)
            raise ValueError(f"value_fn must return one real floating number; it returned {kind}.")
        return value

    value, gradient = jax.value_and_grad(loss_fn)(trained)
    slope = norm(widened(gradient))
    return value.astype(slope.dtype), slope
