"""The bar of a flow, which its solver moves."""

from __future__ import annotations

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from igr.progress.late_bar import show


class FlowBar(diffrax.AbstractProgressMeter):
    """Moves a bar at every so many steps of the solver.

    Attributes:
      bar: from `new_bar`; whoever made it closes it.
      every: steps of the solver between calls to the host.
    """

    bar: Int[Array | np.ndarray, ""]
    every: int = eqx.field(static=True)

    def init(self) -> Array:
        """No steps done."""
        return jnp.zeros((), jnp.int32)

    def step(self, state: Array, progress: Any) -> Array:
        """One more."""
        jax.lax.cond(
            state % self.every == self.every - 1,
            lambda: jax.debug.callback(show, self.bar, progress),
            lambda: None,
        )
        return state + 1

    def close(self, state: Array) -> None:
        """Nothing in the program."""
