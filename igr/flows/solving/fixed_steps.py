"""Steps of one size, with the solver's own error over all of them."""

from __future__ import annotations

from typing import Any

import diffrax
import jax.numpy as jnp
import optax
from diffrax import RESULTS


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
        """Accepts every step, and ends where a solution blows up."""
        inner, total = controller_state
        error = optax.tree.norm(y_error)
        total = total + error.astype(total.dtype)
        keep, next_t0, next_t1, jump, inner, result = self.steps.adapt_step_size(
            t0, t1, y0, y1_candidate, args, y_error, error_order, inner
        )
        # A step over the pole of a solution that blows up has an error beyond all that there is.
        lost = error > optax.tree.norm(y0) + optax.tree.norm(y1_candidate)
        result = RESULTS.where(lost, RESULTS.dt_min_reached, result)
        return keep, next_t0, next_t1, jump, (inner, total), result
