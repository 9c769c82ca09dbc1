"""The alignment of the tangent kernel with the targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from igr.meshes import on_any_mesh
from igr.per_example.inner_products import HIGHEST
from igr.per_example.kernel import kernel_in_unit
from igr.per_example.outputs import output_dimension
from igr.powers_of_two import power_of_two_near
from igr.pytrees import num_examples


@on_any_mesh
def tangent_kernel_alignment(
    apply_fn: Callable[[PyTree, Any], Any],
    params: PyTree,
    x: PyTree,
    targets: Float[Array | np.ndarray, "n q"]
    | Float[Array | np.ndarray, " n"]
    | Int[Array | np.ndarray, " n"],
    *,
    centered: bool = False,
) -> Float[Array, ""]:
    """The alignment of the tangent kernel K with the targets y: y' K y / (|K|_F |y|^2).

    The cosine of K and the ideal kernel y y' (Cristianini et al., 2001), where y lists the targets
    of all n q outputs: 1 where y is the only direction the network learns in, about 1/sqrt(n q)
    where K favours none. Szolnoky et al. (2022), section 3.2, and Baratin et al. (2021), after
    whom section 4 of "Appealing to gradients" is written, see it grow in training.

    Args:
        apply_fn: `(params, x) -> outputs (q,)`, or a scalar, for one x.
        params: Any pytree with floating leaves.
        x: A pytree of arrays with a leading axis of n examples.
        targets: One number an output, (n, q), or (n,) for a scalar output; or, for q > 1 classes,
            n integer labels, which stand for their one-hot vectors.
        centered: Whether the mean over the examples is taken from the targets, and from the
            features of each output, first: centered kernel alignment (Cortes et al., 2012). A
            constant in y or in the features otherwise counts as alignment.

    Returns:
        The scalar from 0 to 1, in float32 or wider; NaN where the kernel or the targets are zero.

    Raises:
        ValueError: As `tangent_kernel`; if the targets are not one number an output, nor labels
            where q > 1.
        KernelTooLargeError: As `tangent_kernel`.

    >>> import jax.numpy as jnp
    >>> line, x = lambda w, x: w * x, jnp.array([1.0, 2.0])  # K = x x'
    >>> print(tangent_kernel_alignment(line, jnp.array(1.0), x, jnp.array([2.0, 4.0])).round(6))
    1.0
    >>> print(tangent_kernel_alignment(line, jnp.array(1.0), x, jnp.array([2.0, -1.0])).round(6))
    0.0
    """
    n, q = num_examples(x), output_dimension(apply_fn, params, x)
    y = _targets(targets, n, q)
    kernel, _ = kernel_in_unit(apply_fn, params, x, centered)
    y = y.astype(kernel.dtype)
    if centered:
        y = y - jnp.mean(y, axis=0, keepdims=True)
    # A cosine knows no sizes, whose squares may be out of the range of the dtype.
    y, kernel = (x / power_of_two_near(x) for x in (y.reshape(-1), kernel))
    along = jnp.vdot(y, jnp.matmul(kernel, y, precision=HIGHEST), precision=HIGHEST)
    return along / (jnp.linalg.norm(kernel) * jnp.sum(y**2))


def _targets(targets: Any, n: int, q: int) -> Float[Array, "n q"]:
    targets = jnp.asarray(targets)
    if q > 1 and targets.shape == (n,) and jnp.issubdtype(targets.dtype, jnp.integer):
        # a label outside the classes has no one-hot vector
        inside = (targets >= 0) & (targets < q)
        return jnp.where(inside[:, None], jax.nn.one_hot(targets, q), jnp.nan)
    if targets.shape not in ((n, q), (n,) if q == 1 else (n, q)):
        labels = f", or {n} integer labels" if q > 1 else ""
        raise ValueError(
            f"targets must be one number an output, of shape ({n}, {q}){labels}; got shape "
            f"{targets.shape}, {targets.dtype}."
        )
    return targets.reshape(n, q)
