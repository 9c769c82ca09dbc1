"""The product M theta of a metric on parameter space with the parameters, for several metrics M."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array

from igr.compiled import traced
from igr.curvature.matrix_function import function_times_vector
from igr.forward_mode import jvp, linearize
from igr.missing_parts import of_whole
from igr.per_example.units import in_their_unit
from igr.pytrees import inner_product
from igr.transforms.losses import require_scalar_loss, require_value_fn
from igr.transforms.partitioned import Partitioned

Metric = Literal[
    "hessian",
    "gauss_newton",
    "absolute_hessian",
    "absolute_distance",
    "absolute_shrinkage",
    "absolute_product",
]


def metric_product(
    metric: Metric,
    leaves: Partitioned,
    chosen: list[bool],
    value_fn: Callable[[Any], Any] | None,
    apply_fn: Callable[[Any], Any] | None,
    output_loss_fn: Callable[[Any], Any] | None,
    lanczos_steps: int,
) -> list[Array]:
    """The product M theta on the chosen leaves, zeros on the others, which are held constant.

    Args:
        metric: One of `Metric`, as `metric_decay` explains them.
        leaves: The parameters.
        chosen: The leaves that the metric sees.
        value_fn: The loss `params -> scalar`, for all metrics but the Gauss-Newton one.
        apply_fn: For the Gauss-Newton metric, the network `params -> outputs`.
        output_loss_fn: For the Gauss-Newton metric, the loss `outputs -> scalar`.
        lanczos_steps: The number of products for `absolute_hessian`.
    """
    theta, whole = chosen_leaves(leaves, chosen)
    if metric == "gauss_newton":
        if apply_fn is None or output_loss_fn is None:
            raise ValueError(
                'metric="gauss_newton" needs the loss in two parts, as extra arguments: '
                "apply_fn=..., a function params -> outputs, and output_loss_fn=..., a "
                "function outputs -> scalar."
            )
        product = _gauss_newton_product(
            lambda part: of_whole(apply_fn, leaves.params_tree(whole(part))), output_loss_fn, theta
        )
    else:
        value_fn = require_value_fn(
            "metric_decay", value_fn, "igr.transforms.metric_value_and_grad"
        )
        loss = leaves.loss(value_fn)
        gradient = jax.grad(lambda part: loss(whole(part)))
        product = _hessian_metric_product(metric, gradient, theta, lanczos_steps)
    return beside_zeros(leaves, chosen, product)


def hessian_theta(
    leaves: Partitioned, chosen: list[bool], value_fn: Callable[[Any], Any]
) -> list[Array]:
    """The product H theta on the chosen leaves, zeros on the others, which are held constant."""
    theta, whole = chosen_leaves(leaves, chosen)
    loss = leaves.loss(value_fn)
    product = _hessian_theta(jax.grad(lambda part: loss(whole(part))), theta)
    return beside_zeros(leaves, chosen, product)


def chosen_leaves(
    leaves: Partitioned, chosen: list[bool]
) -> tuple[list[Array], Callable[[list[Array]], list[Array]]]:
    """The chosen leaves, and a function from values for them to the list of all leaves."""

    def whole(part: list[Array]) -> list[Array]:
        rest = iter(part)
        return [next(rest) if c else p for p, c in zip(leaves.params, chosen, strict=True)]

    return [p for p, c in zip(leaves.params, chosen, strict=True) if c], whole


def beside_zeros(leaves: Partitioned, chosen: list[bool], part: list[Array]) -> list[Array]:
    """Values for the chosen leaves, with zeros for the others."""
    rest = iter(part)
    return [
        next(rest) if c else jnp.zeros_like(p) for p, c in zip(leaves.params, chosen, strict=True)
    ]


def require_metric(metric: Any) -> None:
    """Raises `ValueError` unless `metric` is the name of a metric."""
    if metric not in get_args(Metric):
        raise ValueError(f"metric must be one of {', '.join(get_args(Metric))}; got {metric!r}.")


def _hessian_theta(
    gradient: Callable[[list[Array]], list[Array]], theta: list[Array]
) -> list[Array]:
    return jvp(gradient, (theta,), (theta,))[1]  # theta is frozen as a direction


def _hessian_metric_product(
    metric: Metric,
    gradient: Callable[[list[Array]], list[Array]],
    theta: list[Array],
    lanczos_steps: int,
) -> list[Array]:
    if metric == "absolute_hessian":
        # |H| = (H^2)^(1/2)
        hessian = traced(lambda v: jvp(gradient, (theta,), (v,))[1], theta)
        return function_times_vector(jnp.abs, hessian, theta, lanczos_steps)
    product = _hessian_theta(gradient, theta)
    if metric == "absolute_distance":
        # Of numbers near one, since only the sign matters and the sum may leave the range.
        near_one = [in_their_unit([(x,) for x in leaves])[0] for leaves in (theta, product)]
        distance = inner_product(*near_one)
        return [jnp.sign(distance).astype(p.dtype) * p for p in product]
    if metric == "absolute_shrinkage":
        return [jnp.sign(t) * jnp.abs(p) for t, p in zip(theta, product, strict=True)]
    if metric == "absolute_product":
        return [jnp.abs(p) for p in product]
    return product


def _gauss_newton_product(
    apply_fn: Callable[[list[Array]], Any],
    output_loss_fn: Callable[[Any], Any],
    theta: list[Array],
) -> list[Array]:
    """The product J' L'' J theta, J the Jacobian of the outputs, L'' the loss's Hessian in them."""
    output_gradient = jax.grad(lambda outputs: require_scalar_loss(output_loss_fn(outputs)))
    outputs, along, back, _ = linearize(apply_fn, theta)
    return back(jvp(output_gradient, (outputs,), (along(theta),))[1])
