"""The memory of a linear method as an optax transformation."""

from __future__ import annotations

from typing import NamedTuple

import jax
import optax
from jaxtyping import Array, PyTree

from igr.backward_error.methods.linear import LinearMethod
from igr.checks import Number
from igr.flows import kinds
from igr.flows.steps.sam import sam_gradient
from igr.shown import short, table


@kinds.step_of.register
def _(
    method: LinearMethod, h: Number | Array, *, rates_at: Number | None = None
) -> optax.GradientTransformation:
    parts = [scale_by_recurrence(method), optax.scale_by_learning_rate(h)]
    if method.weight_decay != 0:
        parts.insert(1, optax.add_decayed_weights(float(method.weight_decay)))
    if method.rho != 0:
        parts.insert(0, sam_gradient(float(method.rho), method.normalized))
    return optax.chain(*parts)


def scale_by_recurrence(method: LinearMethod) -> optax.GradientTransformation:
    """The optax transformation of a linear memory, d[n] = sum_i b_i u[n-i] - sum_{i>0} a_i d[n-i].

    In transposed direct form, with one buffer for each lag, from a memory of zeros.

    Args:
      method: without open symbols.

    Raises:
      ValueError: if the method has no finite memory.
    """
    b, a = ([float(x) for x in part] for part in method.recurrence)
    a = a[1:]
    lags = max(len(b) - 1, len(a))
    b = b + [0.0] * (lags + 1 - len(b))
    a = a + [0.0] * (lags - len(a))

    def init(params: PyTree) -> RecurrenceState:
        return RecurrenceState(tuple(optax.tree.zeros_like(params) for _ in range(lags)))

    def update(updates: PyTree, state: RecurrenceState, params: PyTree | None = None):
        del params
        memory = (*state.memory, optax.tree.zeros_like(updates))
        out = jax.tree.map(lambda g, m: b[0] * g + m, updates, memory[0])

        def shift(i: int) -> PyTree:
            return jax.tree.map(
                lambda m, g, d: m + b[i + 1] * g - a[i] * d, memory[i + 1], updates, out
            )

        shifted = tuple(shift(i) for i in range(lags))
        return out, RecurrenceState(shifted)

    return optax.GradientTransformation(init, update)


class RecurrenceState(NamedTuple):
    """The optax state of a recurrence: one buffer for each lag."""

    memory: tuple[PyTree, ...]

    __repr__ = short
    _repr_html_ = table
