"""A controller of equal steps that sums the solver's error estimates."""

from __future__ import annotations

from typing import Any

import diffrax
import jax.numpy as jnp
import optax
from diffrax import RESULTS


class FixedSteps(diffrax.AbstractStepSizeController):
    """`diffrax.ConstantStepSize`, with the sum of the solver's error estimates in its state.

    The state is the pair of the inner controller's state and that sum.
    """

    steps: diffrax.ConstantStepSize = diffrax.ConstantStepSize()

    def wrap(self, direction: Any) -> FixedSteps:
        """The controller itself, for either direction of time."""
        return self

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        """The first step, and the state with an error sum of zero."""
        first, inner = self.steps.init(terms, t0, t1, y0, dt0, args, func, error_order)
        return first, (inner, jnp.zeros((), jnp.result_type(t0)))

    def adapt_step_size(
        self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
    ):
        """Accepts every step, and ends the solve where a solution blows up."""
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
