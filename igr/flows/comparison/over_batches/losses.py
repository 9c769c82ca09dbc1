"""The loss of one batch and the mean over all, checked and traced."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from igr.compiled import Traced, compiled, traced
from igr.flows.comparison.over_batches.drawing import Drawing
from igr.pytrees import combine, partition


class Losses:
    """The loss of one batch, and the mean loss, as functions of params."""

    def __init__(self, value_fn: Any, params: PyTree, batches: PyTree, drawing: Drawing):
        self.batches, self.drawing = batches, drawing
        self._static = partition(params)[1]
        self._value_fn = value_fn
        dynamic = partition(params)[0]
        one = jax.tree.map(lambda x: x[0], batches)
        out = jax.eval_shape(lambda p, b: value_fn(combine(p, self._static), b), dynamic, one)
        shape = getattr(out, "shape", None)
        if shape != ():
            raise ValueError(f"value_fn must return a scalar for one batch; got shape {shape}.")
        self.traced = traced(lambda p, b: value_fn(combine(p, self._static), b), dynamic, one)
        value = float(_mean_value(self.traced, dynamic, batches))
        if not np.isfinite(value):
            raise ValueError(
                f"value_fn is {value} on average over batches at the given params: it must be "
                "finite at the start"
            )

    def of(self, params: PyTree, batch: PyTree) -> Array:
        """The loss of one batch, a scalar."""
        return self._value_fn(params, batch)

    def mean(self, params: PyTree) -> Array:
        """The mean loss over all batches, a scalar."""
        return _mean_value(self.traced, partition(params)[0], self.batches)


@compiled
def _mean_value(loss: Traced, params: PyTree, batches: PyTree) -> Array:
    return jnp.mean(jax.vmap(lambda b: loss(params, b))(batches))
