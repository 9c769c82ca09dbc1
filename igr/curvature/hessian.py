"""Products of the Hessian of a loss with vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from igr.checks import Count
from igr.curvature.operator import first_example, operator, traced_scalar
from igr.forward_mode import jvp
from igr.pytrees import combine, partition


def hessian_product(
    loss_fn: Callable[..., Any],
    params: PyTree,
    batch: PyTree | None = None,
    *,
    chunk: Count | None = None,
) -> Callable[[PyTree], PyTree]:
    """The function v -> Hv, with H the Hessian of the loss at `params`.

    Without `chunk` the gradient is linearized once, in this call, and its residuals (the
    activations of the whole batch, as for one gradient) are kept; each product then costs about 1.4
    gradients. With `chunk` the examples are taken that many at a time and nothing is kept: a
    product costs about 1.9 gradients, in the memory of one chunk. The function returned is a
    pytree, so that it can be an argument of a jitted function, which keeps the data out of the
    compiled program.

    Args:
        loss_fn: `params -> scalar`; or, where `batch` is given, `(params, example) -> scalar`,
            and the loss is the mean over the batch.
        params: Any pytree with floating leaves; the others are held fixed.
        batch: A pytree of arrays with a leading example axis. Prefer it to a `loss_fn` that closes
            over the data, which would be compiled into the program as a constant.
        chunk: The number of examples to take at a time, by default all; it need not divide the
            number of examples.

    Returns:
        A function on vectors: pytrees with the structure of `params`, each leaf in the dtype of
        the parameter. Leaves of `v` that are not floating come back as they are (`None` too).

    Raises:
        ValueError: If `params` has no floating leaf, the loss is not a scalar, the axes of `batch`
            disagree, or `chunk` is not a positive number of examples.

    >>> import jax.numpy as jnp
    >>> product = hessian_product(lambda w: w[0] ** 2 * w[1], jnp.array([1.0, 3.0]))
    >>> print(product(jnp.array([1.0, 0.0])))
    [6. 2.]

    References:
        Pearlmutter, "Fast exact multiplication by the Hessian" (1994); Metric regularization,
        section 3.8.
    """
    params = combine(*partition(params))
    example = () if batch is None else (first_example(batch),)
    loss = traced_scalar("loss_fn", loss_fn, params, *example)
    return operator(_HessianTerm(loss), params, batch, chunk)


class _HessianTerm(eqx.Module):
    loss_fn: Callable[..., Any]

    def __call__(self, params: PyTree, batch: PyTree, v: PyTree) -> PyTree:
        vector, rest = partition(params)

        def loss(vector: PyTree) -> Any:
            whole = combine(vector, rest)
            if batch is None:
                return self.loss_fn(whole)
            return jnp.sum(jax.vmap(lambda example: self.loss_fn(whole, example))(batch))

        return jvp(jax.grad(loss), (vector,), (v,))[1]
