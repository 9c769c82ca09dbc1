"""Model gradient similarity: the trace of the tangent kernel as a penalty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from igr.checks import Count, check_choice, check_count
from igr.penalties.spectral_penalty import require_key
from igr.per_example.kernel import drawn_kernel_traces, kernel_trace


def gradient_similarity_trace(
    apply_fn: Callable[[PyTree, Any], Any],
    params: PyTree,
    x: PyTree,
    *,
    method: Literal["exact", "random_signs"] = "exact",
    probes: Count = 1,
    key: PRNGKeyArray | None = None,
    chunk: Count | None = None,
) -> Float[Array, ""]:
    r"""The penalty tr K = sum_io |grad_theta f_o(x_i)|^2 over all outputs of the batch.

    Szolnoky et al., "On the interpretability of regularisation for neural networks through model
    gradient similarity" (2022), section 5: a small trace means that the examples are learnt
    together. `igr.diagnostics.tangent_kernel_trace` is the same number, as a measure.

    - "exact" adds up squares, from activations and cotangents where it can.
    - "random_signs" takes |grad_theta sum_io r_io f_o(x_i)|^2 for independent signs r_io, one
      backward pass a probe. It is unbiased, and so is its gradient.

    Normalisation: as in the paper, L + alpha tr K with the trace of the batch, neither divided by
    the examples nor by the outputs, and f the raw outputs (logits). Twice the batch is twice the
    penalty: an alpha found at one batch size is halved for twice that.

    Args:
        apply_fn: `(params, x) -> outputs (q,)`, or a scalar, for one x.
        params: Any pytree with floating leaves.
        x: A pytree of arrays with a leading axis of n examples.
        method: "exact" or "random_signs".
        probes: The number of draws.
        key: For the signs, a new one in every step.
        chunk: The number of examples to take at a time under "exact"; by default as many as keep
            what is formed as small as the parameters, or as 16 million numbers.

    Returns:
        The scalar, in float32 or wider.

    Raises:
        ValueError: If `method` is none of the two, `key` is missing for random signs, `probes` or
            `chunk` is less than 1, the leaves of x disagree in their leading axis, apply_fn
            returns neither a vector nor a scalar, or params have no floating leaf.
        TypeError: If `probes` or `chunk` is not an integer.

    >>> import jax.numpy as jnp
    >>> float(gradient_similarity_trace(lambda w, x: w**2 * x, jnp.array(3.0), jnp.array([1.0, 2])))
    180.0
    """
    check_choice("method", method, ("exact", "random_signs"))
    probes = check_count("probes", probes, 1)
    if chunk is not None:
        chunk = check_count("chunk", chunk, 1)
    if method == "random_signs":
        require_key(key)
        return jnp.mean(drawn_kernel_traces(apply_fn, params, x, probes, key))
    return kernel_trace(apply_fn, params, x, chunk)
