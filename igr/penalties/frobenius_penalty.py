"""The Frobenius norm of the Jacobian of the logits with respect to the inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from igr.one_example import of_one_example
from igr.penalties.example_loss import require_inputs
from igr.penalties.input_jacobian import mean_jacobian_square
from igr.per_example.outputs import output_dimension
from igr.pytrees import num_examples


def frobenius_penalty(
    apply_fn: Callable[[PyTree, Any], Any], params: PyTree, x: PyTree
) -> Float[Array, ""]:
    r"""The mean over the batch of |df(x_i)/dx|_F^2, the input Jacobian of the logits f.

    FrobReg: Varga, Csiszárik and Zombori, "Gradient regularization improves accuracy of
    discriminative models" (2017), section 2.1, and Jakubovitz and Giryes (2018). It costs a
    backward pass an output; `spectral_penalty` estimates it by one.

    Normalisation: the paper adds lambda |J|_F^2 to the loss of each example; their mean over the
    batch is added here to a mean loss, L + lambda P. Of a linear layer it is |W|_F^2, twice the
    `weight_penalty`.

    Args:
        apply_fn: `(params, x) -> logits (q,)`, or a scalar, for one x.
        params: Any pytree.
        x: The inputs, floating, along the leading axis: an array or a pytree of arrays.

    Returns:
        The scalar P, in float32 or wider.

    Raises:
        ValueError: If the leaves of x disagree in their leading axis or are not floating, or
            apply_fn returns neither a vector nor a scalar.

    >>> import jax.numpy as jnp
    >>> linear = lambda w, x: w @ x
    >>> float(frobenius_penalty(linear, jnp.array([[1.0, 2.0], [0.0, 3.0]]), jnp.ones((5, 2))))
    14.0
    """
    num_examples(x)
    q = output_dimension(apply_fn, params, x)
    require_inputs(x)
    return mean_jacobian_square(lambda x: jnp.ravel(of_one_example(apply_fn, params, x)), x, q)
