"""The spectrum of the tangent kernel, and its effective rank."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from igr.meshes import on_any_mesh
from igr.per_example.kernel import kernel_in_unit
from igr.shown import short, table


class KernelSpectrum(NamedTuple):
    """The spectrum of a tangent kernel K.

    Attributes:
        eigenvalues: All eigenvalues, the largest first; those within rounding of zero, n q eps
            times the largest, are set to zero.
        rank: The number of eigenvalues that are not zero.
        effective_rank: exp of the entropy of the eigenvalues over their sum (Roy and Vetterli,
            2007): k for k equal ones, the lower the more the few largest have of the sum.
        participation_ratio: (tr K)^2 / tr K^2, which small eigenvalues change less.
    """

    eigenvalues: Float[Array, " nq"]
    rank: Int[Array, ""]
    effective_rank: Float[Array, ""]
    participation_ratio: Float[Array, ""]

    __repr__ = short
    _repr_html_ = table


@on_any_mesh
def tangent_kernel_spectrum(
    apply_fn: Callable[[PyTree, Any], Any], params: PyTree, x: PyTree
) -> KernelSpectrum:
    """The eigenvalues of the tangent kernel, its rank and two effective ranks.

    They are those of the sum of Phi Phi' over all tangent features too ("Appealing to gradients to
    investigate neural network generalization", section 4.1): n times those of the feature
    covariance. A low rank says that the network learns in few directions (Szolnoky et al. 2022,
    section 3.3).

    Args:
        apply_fn: `(params, x) -> outputs (q,)`, or a scalar, for one x.
        params: Any pytree with floating leaves.
        x: A pytree of arrays with a leading axis of n examples.

    Returns:
        A `KernelSpectrum`, in float32 or wider; both ranks are NaN where all gradients are zero.

    Raises:
        ValueError: As `tangent_kernel`.
        KernelTooLargeError: As `tangent_kernel`.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[3.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    >>> found = tangent_kernel_spectrum(lambda w, x: w @ x, jnp.ones(2), x)
    >>> print(found.eigenvalues, found.rank, found.participation_ratio.round(3))
    [9. 1. 0.] 2 1.22
    """
    kernel, unit = kernel_in_unit(apply_fn, params, x)
    values = jnp.linalg.eigvalsh(kernel)[::-1]
    rounding = kernel.shape[0] * jnp.finfo(kernel.dtype).eps * values[0]
    values = jnp.where(values > rounding, values, jnp.where(jnp.isfinite(values), 0, values))
    total = jnp.sum(values)
    share = values / total
    entropy = -jnp.sum(jnp.where(share > 0, share * jnp.log(jnp.where(share > 0, share, 1)), 0))
    return KernelSpectrum(
        unit * (unit * values),
        jnp.sum(values > 0),
        jnp.where(total > 0, jnp.exp(entropy), jnp.nan),
        1 / jnp.sum(share**2),
    )
