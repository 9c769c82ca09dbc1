"""The Jacobian of the predicted probabilities with respect to the inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from igr.one_example import of_one_example
from igr.penalties.example_loss import require_classes, require_inputs
from igr.penalties.input_jacobian import mean_jacobian_square


def jacobian_penalty(
    apply_fn: Callable[[PyTree, Any], Any], params: PyTree, x: PyTree
) -> Float[Array, ""]:
    r"""The mean over the batch of |d softmax(f(x_i))/dx|_F^2, the Jacobian of the probabilities.

    JacReg: Sokolić et al. (2017), in the form of Varga, Csiszárik and Zombori, "Gradient
    regularization improves accuracy of discriminative models" (2017), section 2.1. It costs a
    backward pass an output, and vanishes where the network is certain (equation 1).

    Normalisation: the paper adds lambda |J|_F^2 to the loss of each example; their mean over the
    batch is added here to a mean loss, L + lambda P.

    Args:
        apply_fn: `(params, x) -> logits (q,)` for one x.
        params: Any pytree.
        x: The inputs, floating, along the leading axis: an array or a pytree of arrays.

    Returns:
        The scalar P, in float32 or wider.

    Raises:
        ValueError: If the leaves of x disagree in their leading axis or are not floating, or
            apply_fn returns no vector of two logits or more.

    >>> import jax.numpy as jnp
    >>> two = lambda w, x: jnp.array([0.0, w]) * x  # p = 1/2 at zero: dp/dx = (-w, w)/4
    >>> float(jacobian_penalty(two, 4.0, jnp.array([0.0])))
    2.0
    """
    q = require_classes(apply_fn, params, x)
    require_inputs(x)

    def probabilities(x: PyTree) -> Float[Array, " q"]:
        return jax.nn.softmax(jnp.ravel(of_one_example(apply_fn, params, x)))

    return mean_jacobian_square(probabilities, x, q)
