"""The flow by differences of whole steps, beside a run: its memory, and where it starts."""

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
    """The state of an optimizer, and beside it what its description remembers."""

    state: Any
    memory: Any


def with_memory(
    optimizer: optax.GradientTransformation, method: Method, h: Number
) -> optax.GradientTransformationExtraArgs:
    """The optimizer, with the memory of its description filled by the same gradients."""
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
    """The kept states that are never below zero, as averages of squares are not.

    The description says which. Where its rules are functions, which can be anything, they are those
    of which no record is below zero.
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
    """Kept states as they are, but the unsigned ones: a stage of a solver may leave them below."""
    lifted = lambda x: jax.tree.map(lambda leaf: jax.numpy.maximum(leaf, 0), x)  # noqa: E731
    return {name: lifted(x) if name in unsigned else x for name, x in kept.items()}


class Carried:
    """The field, its start, and what is read off its end.

    Args:
      method: of the run.
      loss: of the floating leaves.
      params: at the start.
      memory: of the description, there.
      h: the step.
      unsigned: kept states that are never negative.
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
        """As `igr.flow` takes it."""
        clock = jax.numpy.asarray(t, self._at.dtype)
        return combine(self._field(self._at, self._loss, clock, partition(y)[0]), self._static)

    def end(self, ys: PyTree) -> tuple[PyTree, dict[str, PyTree]]:
        """Params and kept states."""
        params, memory = ys
        return params, getattr(squared(memory, self._unsigned), "kept", {})
