"""A step-size controller with a bound on the number of steps.

An adaptive solver resolves every kink of a ReLU network with the smallest steps it is allowed, and
its answer is no better for it, because kinks change the run by the size of a step h. So the number
of steps is bounded in proportion to the time passed; beyond the bound every step is h.
"""

from __future__ import annotations

from typing import Any

import diffrax
import jax.numpy as jnp
import numpy as np
import optax
from diffrax import RESULTS
from jaxtyping import Array

from igr.checks import Number

STEPS_BESIDES = 100  # before the bound is felt: short runs are as exact as they are asked to be
STEPS_FOR_A_STEP = 1.5  # of the solver for one of the optimizer, 13 evaluations of a field each
LEAST_STEP_ERROR = 1e-3  # of the state, which a step as short as rounding allows may be off by


def most_steps(steps: Number) -> float:
    """The largest number of solver steps for this many steps of the optimizer."""
    return STEPS_BESIDES + (STEPS_FOR_A_STEP + 1) * steps


class BoundedSteps(diffrax.AbstractStepSizeController):
    """A controller of at most 100 steps and 1.5 for each time h, and of steps h from then on.

    Attributes:
      adaptive: the controller that decides while it is within the bound.
      h: the step of the optimizer.
    """

    adaptive: diffrax.AbstractStepSizeController
    h: Array | np.ndarray

    def wrap(self, direction: Any) -> BoundedSteps:
        """The controller for this direction of time, as diffrax asks for it."""
        return BoundedSteps(self.adaptive.wrap(direction), self.h)

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        """The first step, and the state: inner state, start, tries, whether fixed, summed error."""
        first, inner = self.adaptive.init(terms, t0, t1, y0, dt0, args, func, error_order)
        zero = jnp.zeros((), jnp.result_type(t0))
        return first, (inner, t0 + zero, jnp.zeros((), int), jnp.asarray(False), zero)

    def adapt_step_size(
        self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
    ):
        """Accepts what the adaptive controller accepts, and every step once steps are fixed."""
        inner, start, tries, fixed, total = controller_state
        keep, next_t0, next_t1, jump, inner, result = self.adaptive.adapt_step_size(
            t0, t1, y0, y1_candidate, args, y_error, error_order, inner
        )
        error = optax.tree.norm(y_error).astype(total.dtype)
        # A jump of the field, as where clipping sets in, is passed in one least step. Where a
        # solution blows up that step has an error of the solution's own size.
        small = error <= LEAST_STEP_ERROR * optax.tree.norm(y1_candidate)
        through = (result == RESULTS.dt_min_reached) & small
        next_t1 = jnp.where(through, t1 + (t1 - t0), next_t1)
        keep = keep | fixed | through
        next_t0 = jnp.where(keep, t1, next_t0)
        total = total + jnp.where(keep, error, 0)
        tries = tries + 1
        spent = tries > STEPS_BESIDES + STEPS_FOR_A_STEP * (t1 - start) / self.h
        result = RESULTS.where(fixed | through, RESULTS.successful, result)
        fixed = fixed | spent
        next_t1 = jnp.where(fixed, next_t0 + self.h.astype(next_t0.dtype), next_t1)
        return keep, next_t0, next_t1, jump, (inner, start, tries, fixed, total), result
