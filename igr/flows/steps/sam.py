"""The SAM gradient, taken at a point further up the loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from igr.backward_error.methods import SharpnessAware
from igr.checks import Number
from igr.curvature import vectors
from igr.flows import kinds


@kinds.step_of.register
def _(
    method: SharpnessAware, h: Number | Array, *, rates_at: Number | None = None
) -> optax.GradientTransformation:
    return optax.chain(sam_gradient(float(method.ratio) * h, True), optax.scale_by_learning_rate(h))


def sam_gradient(rho: Number | Array, normalized: bool) -> optax.GradientTransformationExtraArgs:
    """Replaces the gradient g by that at theta + rho g, or at theta + rho g/|g| if normalized.

    Foret et al. (2021), equation 2.

    Args:
      rho: the length of the ascent, or its factor of the gradient.
      normalized: whether rho is the length.

    Returns:
      A transformation whose `update` needs `params` and the extra argument `value_fn`.
    """

    def update(
        updates: PyTree,
        state: optax.EmptyState,
        params: PyTree | None = None,
        *,
        value_fn: Callable[[PyTree], Array] | None = None,
        **extra_args: Any,
    ) -> tuple[PyTree, optax.EmptyState]:
        del extra_args
        if params is None or value_fn is None:
            raise ValueError(
                "the gradient uphill is taken by the step itself: update needs params and "
                "value_fn, as in optimizer.update(grads, state, params, value_fn=value_fn)"
            )
        norm = vectors.norm(updates) if normalized else 1.0
        far = rho / jnp.where(norm > 0, norm, 1.0)
        above = jax.tree.map(lambda x, g: (x + far * g).astype(x.dtype), params, updates)
        return jax.grad(value_fn)(above), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
