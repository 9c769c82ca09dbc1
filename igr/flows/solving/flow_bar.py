"""The progress bar of a flow, moved by its solver."""

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
    """A diffrax progress meter that moves a bar every so many solver steps.

    Attributes:
      bar: from `new_bar`; whoever made it closes it.
      every: steps of the solver between calls to the host.
    """

    bar: Int[Array | np.ndarray, ""]
    every: int = eqx.field(static=True)

    def init(self) -> Array:
        """The count of solver steps before the first, 0."""
        return jnp.zeros((), jnp.int32)

    def step(self, state: Array, progress: Any) -> Array:
        """The count after one more step; moves the bar if it is due."""
        jax.lax.cond(
            state % self.every == self.every - 1,
            lambda: jax.debug.callback(show, self.bar, progress),
            lambda: None,
        )
        return state + 1

    def close(self, state: Array) -> None:
        """Does nothing: the bar is closed by whoever made it."""
