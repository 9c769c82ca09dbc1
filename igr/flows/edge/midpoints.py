"""The middle of an oscillating run, which the flows at the edge of stability follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import optax
from jaxtyping import Array, PyTree

from igr.pytrees import combine, partition


def midpoints(params: PyTree) -> PyTree:
    """(w[n-1] + 2 w[n] + w[n+1])/4 of a run recorded at every step, for n = 1 .. r - 2.

    Of w[n] = a + (-1)^n b it leaves a.

    Args:
      params: of r successive steps, every floating leaf with a leading axis r of at least 3, such
        as `igr.run(..).params`.

    Raises:
      ValueError: if there are fewer than three steps.

    >>> import jax.numpy as jnp
    >>> print(midpoints(jnp.array([3.0, 1.0, 3.0, 1.0])))
    [2. 2.]
    """
    stacked, static = eqx.partition(params, eqx.is_inexact_array)
    lengths = {x.shape[0] if x.ndim else 0 for x in jax.tree.leaves(stacked)}
    if len(lengths) != 1 or min(lengths) < 3:
        raise ValueError(
            "params must hold at least three successive steps along a leading axis that all "
            f"floating leaves share; got lengths {sorted(lengths)}"
        )
    return combine(jax.tree.map(lambda w: (w[:-2] + 2 * w[1:-1] + w[2:]) / 4, stacked), static)


def midpoint_after(
    optimizer: optax.GradientTransformation, value_fn: Callable[[PyTree], Array]
) -> Callable[[PyTree, Any], PyTree]:
    """`(params, state) -> midpoint` of the step after, for the `observe` of `igr.run`.

    Recorded at step n it is (w[n] + 2 w[n+1] + w[n+2])/4, for two gradients more a record: with it
    a run need not be recorded at every step.

    Args:
      optimizer: of the run.
      value_fn: the loss of the run.
    """
    advance = step_of(optimizer, value_fn)

    def observe(params: PyTree, state: Any) -> PyTree:
        dynamic, static = partition(params)
        first = advance((dynamic, state), static)
        second = advance(first, static)
        middle = jax.tree.map(
            lambda a, b, c: (a + 2 * b + c) / 4, dynamic, partition(first[0])[0], second[0]
        )
        return combine(middle, static)

    return observe


def step_of(
    optimizer: optax.GradientTransformation, value_fn: Callable[[PyTree], Array]
) -> Callable[[tuple[PyTree, Any], PyTree], tuple[PyTree, Any]]:
    """One step of a run, `((params' floating leaves, state), the other leaves) -> the same`."""
    update = optax.with_extra_args_support(optimizer).update

    def advance(at: tuple[PyTree, Any], static: PyTree) -> tuple[PyTree, Any]:
        params, state = at

        def loss(p: PyTree) -> Array:
            return value_fn(combine(p, static))

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = update(gradient, state, params, value=value, grad=gradient, value_fn=loss)
        return optax.apply_updates(params, updates), state

    return advance
