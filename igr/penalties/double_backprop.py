"""Double backpropagation: the gradient of the loss with respect to the inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float, PyTree

from igr.penalties.example_loss import example_loss, require_inputs
from igr.per_example.outputs import square_sum
from igr.pytrees import inputs_and_targets, num_examples


def double_backprop(
    example_loss_fn: Callable[[PyTree, Any], Any],
    params: PyTree,
    batch: PyTree = None,
    y: PyTree = None,
    *,
    x: PyTree = None,
) -> Float[Array, ""]:
    r"""The mean over the batch of |dL(x_i, y_i)/dx|^2, the input gradient of the loss squared.

    DoubleBack, also called DataGrad: Drucker and LeCun (1991), in the form of Varga, Csiszárik and
    Zombori, "Gradient regularization improves accuracy of discriminative models" (2017), section
    2.1. Of cross-entropy it is the projection |(p - y)' J|^2 of the Jacobian J of the logits on
    the error of the probabilities p (equation 5), which fades as the examples are fitted.

    Normalisation: the paper adds lambda |dL/dx|^2 to the loss of each example; their mean over
    the batch is added here to a mean loss, L + lambda P.

    Args:
        example_loss_fn: `(params, (x, y)) -> scalar`; or an `apply_fn`, `(params, x) -> logits`,
            with integer labels y, whose cross-entropy is then the loss.
        params: Any pytree.
        batch: The pair (x, y): the inputs, floating, along the leading axis, an array or a pytree
            of arrays; and the targets, along the same.
        y: The targets, if `batch` is the inputs alone.
        x: The inputs by name, with `y` and in place of `batch`.

    Returns:
        The scalar P, in float32 or wider.

    Raises:
        TypeError: If the batch is neither a pair nor given as x and y.
        ValueError: If the leaves of x and y disagree in their leading axis, x is not floating, or
            the loss is not a scalar; for an apply_fn, if it returns no vector, or labels are no
            integers in its classes (under jit, where this cannot be seen, P is NaN).

    >>> import jax.numpy as jnp
    >>> loss = lambda w, example: (w @ example[0] - example[1]) ** 2 / 2
    >>> x, y = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([2.0, 2.0])
    >>> float(double_backprop(loss, jnp.array([3.0, 4.0]), (x, y)))  # (1^2 + 2^2)/2 times |w|^2
    62.5
    """
    x, y = inputs_and_targets(batch, y, x)
    loss = example_loss(example_loss_fn, params, x, y)
    require_inputs(x)

    def total(x: PyTree) -> Array:  # examples do not meet: its gradients are those of each
        return jax.vmap(lambda x, y: loss(params, x, y))(x, y).sum()

    return square_sum(jax.grad(total)(x)) / num_examples(x)
