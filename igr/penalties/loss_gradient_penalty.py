"""The norm of the gradient of the loss, with respect to the parameters or the inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from igr.curvature.vectors import scaled, widened
from igr.penalties.example_loss import example_loss, require_inputs
from igr.per_example.outputs import square_sum
from igr.powers_of_two import power_of_two_near
from igr.pytrees import combine, inputs_and_targets, partition


def loss_gradient_penalty(
    example_loss_fn: Callable[[PyTree, Any], Any],
    params: PyTree,
    batch: PyTree = None,
    y: PyTree = None,
    *,
    x: PyTree = None,
    by: Literal["parameters", "inputs"] = "parameters",
    squared: bool = False,
) -> Float[Array, ""]:
    r"""The norm |grad_theta L| of the mean loss L, or the mean over the batch of |dL(x_i, y_i)/dx|.

    Szolnoky et al., "On the interpretability of regularisation for neural networks through model
    gradient similarity" (2022), appendix A.4. By the parameters (Barrett and Dherin 2021; Zhao et
    al. 2022), |grad L| <= |grad f| |dL/df|, where |grad f|^2 is the trace of the tangent kernel:
    it fades where the loss does, which `gradient_similarity_trace` does not. Squared it is what
    `igr.transforms.add_gradient_norm_penalty` adds to a gradient. By the inputs (Drucker and LeCun
    1991; Hoffman et al. 2019) it is, squared, `double_backprop`.

    Normalisation: as in the paper, L + lambda P with the norm itself and not its square (give
    `squared=True` for that); L is the mean over the batch, by the inputs of each example alone.
    Where the gradient is exactly zero the derivative of the norm is taken as zero. By the inputs it
    holds a gradient of their size.

    Args:
        example_loss_fn: `(params, (x, y)) -> scalar`; or an `apply_fn`, `(params, x) -> logits`,
            with integer labels y, whose cross-entropy is then the loss.
        params: Any pytree, with floating leaves where the gradient is by them.
        batch: The pair (x, y): a pytree of arrays with a leading axis of n examples, floating where
            the gradient is by them; and the targets, along the same axis.
        y: The targets, if `batch` is the inputs alone.
        x: The inputs by name, with `y` and in place of `batch`.
        by: "parameters" or "inputs".
        squared: Whether norms are squared.

    Returns:
        The scalar P, in float32 or wider.

    Raises:
        TypeError: If the batch is neither a pair nor given as x and y.
        ValueError: If `by` is none of the two, params or x do not have the floating leaves it
            needs, or as `double_backprop`.

    >>> import jax.numpy as jnp
    >>> loss = lambda w, example: (w @ example[0] - example[1]) ** 2 / 2
    >>> w, x, y = jnp.ones(2), jnp.array([[3.0, 4.0]]), jnp.array([5.0])
    >>> float(loss_gradient_penalty(loss, w, (x, y)))  # the residual is 2, |x| is 5
    10.0
    """
    if by not in ("parameters", "inputs"):
        raise ValueError(f"by must be 'parameters' or 'inputs'; got {by!r}.")
    x, y = inputs_and_targets(batch, y, x)
    loss = example_loss(example_loss_fn, params, x, y)

    def losses(params: PyTree, x: PyTree) -> Float[Array, " n"]:
        return jax.vmap(lambda x, y: loss(params, x, y))(x, y)

    if by == "parameters":
        trained, constant = partition(params)
        gradient = jax.grad(lambda p: jnp.mean(losses(combine(p, constant), x)))(trained)
        return square_sum(gradient) if squared else _length(gradient)
    require_inputs(x)
    gradients = jax.grad(lambda x: jnp.sum(losses(params, x)))(x)
    return jnp.mean(jax.vmap(square_sum if squared else _length)(gradients))


def _length(gradient: PyTree) -> Array:
    """The Euclidean norm of a gradient of any size, with derivative zero at zero."""
    gradient = widened(gradient)
    unit = power_of_two_near(gradient)
    square = square_sum(scaled(1 / unit, gradient))
    return unit * jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), square)
