"""What a penalty or a metric is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree


@dataclass(frozen=True)
class At:
    """A network at a moment of its training, in the three callables of `igr`.

    Attributes:
        params: The trainable arrays.
        apply_fn: `(params, x) -> outputs` of one example, without dropout and with the running
            statistics where the network normalises batches.
        example_loss_fn: `(params, (x, y)) -> scalar` with that `apply_fn`.
        value_fn: `params -> scalar`, the mean loss over x and y. Large sets are gone through in
            chunks, forwards and backwards.
        x: The batch for a penalty; all training inputs for a metric.
        y: What belongs to `x`.
        test_x: The test inputs, for a metric; None for a penalty.
        test_y: What belongs to `test_x`.
        test_value_fn: As `value_fn`, over the test set; None for a penalty.
        settings: The learning rate and whatever else the grid has, scalars.
        step: The steps done.
        key: A new one every time.
    """

    params: PyTree
    apply_fn: Callable[[PyTree, Any], Array]
    example_loss_fn: Callable[[PyTree, Any], Array]
    value_fn: Callable[[PyTree], Array]
    x: Float[Array, "examples ..."]
    y: Array
    settings: Mapping[str, Array]
    step: Int[Array, ""]
    key: PRNGKeyArray
    test_x: Float[Array, "tests ..."] | None = None
    test_y: Array | None = None
    test_value_fn: Callable[[PyTree], Array] | None = None
