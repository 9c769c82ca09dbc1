"""Model gradient similarity: the log-determinant of the tangent kernel as a penalty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from igr.checks import Number, check_number
from igr.per_example.kernel import kernel_in_unit, log_determinant


def gradient_similarity_logdet(
    apply_fn: Callable[[PyTree, Any], Any], params: PyTree, x: PyTree, *, ridge: Number = 0.0
) -> Float[Array, ""]:
    r"""The penalty log det K, with K the tangent kernel of all outputs of the batch.

    Szolnoky et al., "On the interpretability of regularisation for neural networks through model
    gradient similarity" (2022), section 5: the sum of the logarithms of the eigenvalues, of which
    `gradient_similarity_trace` is the plain sum.

    Normalisation: as in the paper, L + alpha log det K with the kernel of the batch (n q x n q),
    divided by nothing, and f the raw outputs (logits).

    Unbounded minimisation leads to a singular kernel and minus infinity. That is the value, with
    gradients that are not finite, where a pivot is within rounding (as in
    `igr.diagnostics.tangent_kernel_logdet`): for two equal examples, or more outputs than
    parameters. A `ridge` bounds it: log det (K + ridge I), which is not in the paper.

    Args:
        apply_fn: `(params, x) -> outputs (q,)`, or a scalar, for one x.
        params: Any pytree with floating leaves.
        x: A pytree of arrays with a leading axis of n examples.
        ridge: Added to the diagonal, not negative.

    Returns:
        The scalar, in float32 or wider.

    Raises:
        ValueError: If `ridge` is negative, the leaves of x disagree in their leading axis,
            apply_fn returns neither a vector nor a scalar, or params have no floating leaf.
        KernelTooLargeError: If memory cannot hold the kernel; `gradient_similarity_trace` needs
            none.

    >>> import jax.numpy as jnp
    >>> scale = lambda w, x: w**2 * x
    >>> w = jnp.array([1.0, 0.5])  # K = diag(4, 1)
    >>> print(gradient_similarity_logdet(scale, w, jnp.ones((1, 1))).round(4))
    1.3863
    """
    ridge = check_number("ridge", ridge, at_least=0)
    kernel, unit = kernel_in_unit(apply_fn, params, x)
    added = ridge / unit / unit * jnp.eye(len(kernel), dtype=kernel.dtype)
    return log_determinant(kernel + added, unit)
