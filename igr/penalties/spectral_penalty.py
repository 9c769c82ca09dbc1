"""Spectral regularization: the Jacobian of the logits along a random direction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from igr.meshes import on_any_mesh
from igr.one_example import of_one_example
from igr.penalties.example_loss import require_inputs
from igr.per_example.outputs import output_dimension, square_sum
from igr.pytrees import num_examples


@on_any_mesh
def spectral_penalty(
    apply_fn: Callable[[PyTree, Any], Any],
    params: PyTree,
    x: PyTree,
    key: PRNGKeyArray | None = None,
    *,
    spherical: bool = False,
    draw: Literal["batch", "example"] = "batch",
) -> Float[Array, ""]:
    r"""The mean over the batch of |J_i' r|^2, J_i the input Jacobian of the logits, r random.

    SpectReg: Varga, Csiszárik and Zombori, "Gradient regularization improves accuracy of
    discriminative models" (2017), sections 2.1 and 2.4. J_i = df(x_i)/dx, and the cost is one
    backward pass, whatever the number q of logits.

    Normalisation: as in the paper the plain r ~ N(0, 1)^q is not scaled, and P estimates the
    `frobenius_penalty`, the mean of |J_i|_F^2, without bias. A spherical r = r / |r| estimates a
    q-th of it, and never exceeds the mean square of the spectral norms of J_i. The mean over the
    batch is added to a mean loss, L + lambda P.

    Args:
        apply_fn: `(params, x) -> logits (q,)`, or a scalar, for one x.
        params: Any pytree.
        x: The inputs, floating, along the leading axis: an array or a pytree of arrays.
        key: For r; a new one in every step.
        spherical: Whether r is scaled to length one.
        draw: One r for the "batch", as in the authors' code, or one for each "example", whose
            estimate varies less.

    Returns:
        The scalar P, in float32 or wider.

    Raises:
        ValueError: If `key` is missing, `draw` is none of the two, the leaves of x disagree in
            their leading axis or are not floating, or apply_fn returns neither a vector nor a
            scalar.

    >>> import jax, jax.numpy as jnp
    >>> slope = lambda w, x: w * x  # of one output a spherical draw is a sign
    >>> float(spectral_penalty(slope, 3.0, jnp.ones(5), jax.random.key(0), spherical=True))
    9.0
    """
    if draw not in ("batch", "example"):
        raise ValueError(f"draw must be 'batch' or 'example'; got {draw!r}.")
    key = require_key(key)
    n, q = num_examples(x), output_dimension(apply_fn, params, x)
    require_inputs(x)

    def outputs(x: PyTree) -> Float[Array, "n q"]:
        return jax.vmap(lambda x: jnp.ravel(of_one_example(apply_fn, params, x)))(x)

    values, vjp_fn = jax.vjp(outputs, x)
    dtype = jnp.promote_types(values.dtype, jnp.float32)
    r = jax.random.normal(key, (1 if draw == "batch" else n, q), dtype)
    if spherical:
        r = r / jnp.linalg.norm(r, axis=1, keepdims=True)
    (gradients,) = vjp_fn(jnp.broadcast_to(r, (n, q)).astype(values.dtype))
    return square_sum(gradients) / n


def require_key(key: PRNGKeyArray | None) -> PRNGKeyArray:
    """Returns the key of a penalty that draws at random.

    Raises:
      ValueError: If there is none.
    """
    if key is None:
        raise ValueError(
            "key must be given, such as jax.random.key(0), a new one in every step: with one and "
            "the same draw the network would learn to be flat along it alone; got None."
        )
    return key
