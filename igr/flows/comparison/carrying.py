"""The flow "differences" of a method with memory: its field, start and end beside a run."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import Array, PyTree

from igr.backward_error.protocols import Method
from igr.checks import Number
from igr.compiled import Traced, traced
from igr.flows import kinds
from igr.flows.fields.by_differences.carried import carried_field, rooted, squared
from igr.flows.runnable import time_like
from igr.pytrees import combine, partition


class Side(NamedTuple):
    """The state of an optimizer, and the memory of its description."""

    state: Any
    memory: Any


def with_memory(
    optimizer: optax.GradientTransformation, method: Method, h: Number
) -> optax.GradientTransformationExtraArgs:
    """The optimizer, with its description's memory of the same gradients in its state."""
    real = optax.with_extra_args_support(optimizer)
    described = optax.with_extra_args_support(kinds.step_of(method, h))

    def init(params: PyTree) -> Side:
        return Side(real.init(params), described.init(params))

    def update(
        updates: PyTree, state: Side, params: PyTree | None = None, **extra_args: Any
    ) -> tuple[PyTree, Side]:
        _, memory = described.update(updates, state.memory, params, **extra_args)
        updates, after = real.update(updates, state.state, params, **extra_args)
        return updates, Side(after, memory)

    return optax.GradientTransformationExtraArgs(init, update)


def never_negative(method: Method, kept: dict[str, PyTree]) -> frozenset[str]:
    """The names of the kept states that are never negative, as averages of squares.

    They follow from the method's formulas. For rules given as functions, they are the states of
    which no recorded value is negative.
    """
    described = kinds.never_negative_of(method)
    if described is not None:
        return described
    return frozenset(
        name
        for name, x in kept.items()
        if all(np.all(np.asarray(y) >= 0) for y in jax.tree.leaves(x))
    )


def not_below_zero(kept: dict[str, PyTree], unsigned: Collection[str]) -> dict[str, PyTree]:
    """The kept states, those in `unsigned` clipped at zero, as a solver's stages may pass it."""
    lifted = lambda x: jax.tree.map(lambda leaf: jax.numpy.maximum(leaf, 0), x)  # noqa: E731
    return {name: lifted(x) if name in unsigned else x for name, x in kept.items()}


class Carried:
    """The field of the flow "differences" for a method with memory, and its initial state.

    Args:
      method: the method of the run.
      loss: the loss, a function of the floating leaves.
      params: the floating leaves at the start.
      memory: the description's memory at the start.
      h: the step.
      unsigned: the names of kept states that are never negative.
    """

    def __init__(
        self, method: Method, loss: Traced, params: PyTree, memory: Any, h: Number,
        unsigned: Collection[str],
    ):  # fmt: skip
        self._unsigned = unsigned
        self._at, self._loss = time_like(h, params), loss
        self.start = params, rooted(memory, unsigned)

        def field(h: Array, loss: Any, t: Array, y: PyTree) -> PyTree:
            found = carried_field(method, lambda q: loss(partition(q)[0]), h, unsigned)
            return partition(found(t, y, None))[0]

        dynamic, self._static = partition(self.start)
        self._field = traced(
            lambda h, loss, t, y: field(h, loss, t, combine(y, self._static)),
            self._at, loss, self._at, dynamic,
        )  # fmt: skip

    def field(self, t: Any, y: PyTree, args: Any) -> PyTree:
        """The field `f(t, y, args)` for `igr.flow`."""
        clock = jax.numpy.asarray(t, self._at.dtype)
        return combine(self._field(self._at, self._loss, clock, partition(y)[0]), self._static)

    def end(self, ys: PyTree) -> tuple[PyTree, dict[str, PyTree]]:
        """The params and kept states of the flow's states."""
        params, memory = ys
        return params, getattr(squared(memory, self._unsigned), "kept", {})
