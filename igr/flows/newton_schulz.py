"""The Newton-Schulz iteration that brings the singular values of a matrix near one, as in Muon."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from igr.meshes import on_any_mesh

# c0 s + c1 s^3 + c2 s^5 of every singular value s: as steep at 0 as it can be (Jordan 2024).
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


@on_any_mesh(like=0)
def newton_schulz(
    x: Float[Array, "*many rows columns"], steps: int = 5, eps: float = 1e-8
) -> Float[Array, "*many rows columns"]:
    """A matrix with the same singular vectors, and all singular values brought near one.

    As in `optax.contrib.muon`; singular values end between 0.7 and 1.2. The steps are a loop, so
    that a compiled program holds the arrays of one step, three matrices and three Gram matrices of
    the shorter side (twice as many with a directional derivative). Several matrices, such as those
    of stacked layers, are taken one after the other.

    Args:
      x: the matrix, of any floating dtype; or several, by leading axes.
      steps: how many iterations.
      eps: added to the norm by which the matrix is divided first.

    >>> print(newton_schulz(jnp.diag(jnp.array([3.0, 0.1]))).round(2))
    [[0.7  0.  ]
     [0.   1.13]]
    """
    rows, columns = x.shape[-2:]
    if x.ndim > 2:

        def one(i: Int[Array, ""], found: Array) -> Array:
            return found.at[i].set(newton_schulz(found[i], steps, eps))

        several = x.reshape(-1, rows, columns)
        return jax.lax.fori_loop(0, len(several), one, several).reshape(x.shape)
    wide = x if rows <= columns else x.T
    a, b, c = (jnp.asarray(n, x.dtype) for n in COEFFICIENTS)

    def step(_: int | Array, x: Array) -> Array:
        gram = x @ x.T
        return a * x + (b * gram + c * gram @ gram) @ x

    found = jax.lax.fori_loop(0, steps, step, wide / (jnp.linalg.norm(wide) + eps))
    return found if rows <= columns else found.T
