"""How a metric on parameter space acts on the parameters: M theta, for several metrics M."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

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
    """M theta on the chosen leaves, the others being constants of the loss (and zero here).

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
            lambda part: apply_fn(leaves.params_tree(whole(part))), output_loss_fn, theta
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
    """H theta on the chosen leaves, the others being constants of the loss (and zero here)."""
    theta, whole = chosen_leaves(leaves, chosen)
    loss = leaves.loss(value_fn)
    product = _hessian_theta(jax.grad(lambda part: loss(whole(part))), theta)
    return beside_zeros(leaves, chosen, product)


def chosen_leaves(
    leaves: Partitioned, chosen: list[bool]
) -> tuple[list[Array], Callable[[list[Array]], list[Array]]]:
    """The chosen leaves, and the way from them back to all."""

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
    """Raise unless `metric` is the name of one."""
    if metric not in get_args(Metric):
        raise ValueError(f"metric must be one of {', '.join(get_args(Metric))}; got {metric!r}.")


def _hessian_theta(
    gradient: Callable[[list[Array]], list[Array]], theta: list[Array]
) -> list[Array]:
    return jax.jvp(gradient, (theta,), (theta,))[1]  # theta is frozen as a direction


def _hessian_metric_product(
    metric: Metric,
    gradient: Callable[[list[Array]], list[Array]],
    theta: list[Array],
    lanczos_steps: int,
) -> list[Array]:
    if metric == "absolute_hessian":
        return _absolute_hessian_theta(gradient, theta, lanczos_steps)
    product = _hessian_theta(gradient, theta)
    if metric == "absolute_distance":
        distance = sum(jnp.vdot(t, p) for t, p in zip(theta, product, strict=True))
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
    """J' L'' J theta: J the Jacobian of the outputs, L'' the Hessian of the loss in the outputs."""
    output_gradient = jax.grad(lambda outputs: require_scalar_loss(output_loss_fn(outputs)))
    outputs, pushed = jax.jvp(apply_fn, (theta,), (theta,))
    curved = jax.jvp(output_gradient, (outputs,), (pushed,))[1]
    return jax.vjp(apply_fn, theta)[1](curved)[0]


def _absolute_hessian_theta(
    gradient: Callable[[list[Array]], list[Array]], theta: list[Array], steps: int
) -> list[Array]:
    """|H| theta with |H| = (H^2)^(1/2), by Lanczos from theta: |theta| Q |T| e_1.

    Exact once the steps reach the number of distinct eigenvalues that theta has a part in.
    """
    wide = [t.astype(jnp.promote_types(t.dtype, jnp.float32)) for t in theta]
    start, unravel = ravel_pytree(wide)
    _, hessian = jax.linearize(gradient, theta)

    def product(vector: Float[Array, " p"]) -> Float[Array, " p"]:
        tangent = [v.astype(t.dtype) for v, t in zip(unravel(vector), theta, strict=True)]
        image = [h.astype(w.dtype) for h, w in zip(hessian(tangent), wide, strict=True)]
        return ravel_pytree(image)[0]

    def step(carry: tuple[Array, Array], j: Array) -> tuple[tuple[Array, Array], Array]:
        basis, current = carry
        basis = basis.at[j].set(current)
        image = product(current)
        rest = image
        for _ in range(2):  # twice is enough to stay orthogonal
            rest = rest - basis.T @ (basis @ rest)
        # Where nothing but rounding is left, theta's invariant subspace is found: go on with zeros.
        floor = 100 * jnp.finfo(image.dtype).eps * jnp.linalg.norm(image)
        return (basis, _normalized(rest, floor)), image

    steps = min(steps, start.size)
    basis = jnp.zeros((steps, start.size), start.dtype)
    (basis, _), images = jax.lax.scan(step, (basis, _normalized(start)), jnp.arange(steps))
    projected = basis @ images.T
    eigenvalues, vectors = jnp.linalg.eigh((projected + projected.T) / 2)
    weights = vectors @ (jnp.abs(eigenvalues) * vectors[0])
    found = jnp.linalg.norm(start) * (weights @ basis)
    return [v.astype(t.dtype) for v, t in zip(unravel(found), theta, strict=True)]


def _normalized(vector: Float[Array, " p"], floor: Array | float = 0.0) -> Float[Array, " p"]:
    """The unit vector, or zero where the norm is not above `floor`."""
    norm = jnp.linalg.norm(vector)
    return jnp.where(norm > floor, vector / jnp.where(norm > 0, norm, 1.0), 0.0)
