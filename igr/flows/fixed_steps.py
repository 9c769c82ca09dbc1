"""Steps of one size, with the solver's own error over all of them."""

from __future__ import annotations

from typing import Any

import diffrax
import jax.numpy as jnp
import optax


class FixedSteps(diffrax.AbstractStepSizeController):
    """`diffrax.ConstantStepSize` that adds up the solver's estimates of its error.

    Its state is that of the steps, and the sum.
    """

    steps: diffrax.ConstantStepSize = diffrax.ConstantStepSize()

    def wrap(self, direction: Any) -> FixedSteps:
        """As diffrax asks for it."""
        return self

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        """The first step, and no error till now."""
        first, inner = self.steps.init(terms, t0, t1, y0, dt0, args, func, error_order)
        return first, (inner, jnp.zeros((), jnp.result_type(t0)))

    def adapt_step_size(
        self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
    ):
        """Accepts every step."""
        inner, total = controller_state
        total = total + optax.tree.norm(y_error).astype(total.dtype)
        keep, next_t0, next_t1, jump, inner, result = self.steps.adapt_step_size(
            t0, t1, y0, y1_candidate, args, y_error, error_order, inner
        )
        return keep, next_t0, next_t1, jump, (inner, total), result
