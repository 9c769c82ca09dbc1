"""Compares the steps of a description with those of the optimizer it describes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jaxtyping import Array, PyTree

from igr.backward_error.protocols import Method
from igr.checks import Number
from igr.compiled import Traced, compiled, traced
from igr.flows.parts import with_parts
from igr.flows.run import optimizer_of

TOLERANCE = 0.01  # of a step, which rounding and what a memory still lacks stay below
_MOST_STEPS = 1000
_FEW_STEPS = 100  # from empty memories, where filling them takes too many


def check_described(
    method: Method,
    optimizer: optax.GradientTransformation,
    loss: Traced,
    params: PyTree,
    learning_rate: Number,
    filling: int,
) -> None:
    """Raises unless the optimizer, after its start-up, takes the steps of its description.

    Both are given the same gradients, those along the optimizer's own run.

    Args:
      method: the description.
      optimizer: the optax transformation, learning rate included.
      loss: the loss, a function of the floating leaves.
      params: the floating leaves at the start.
      learning_rate: the step h of the description.
      filling: the steps after which the start-up is taken to be over. If more than a thousand,
        both start with empty memories but with their step counts at this number, so that no bias
        is corrected, and only a hundred steps are taken.

    Raises:
      ValueError: if their last steps differ by more than one per cent.
    """
    described = optimizer_of(method, learning_rate)
    both = (optimizer, described)
    pair = [_updates_of(o) for o in both]
    starts = [traced(o.init, params) for o in both]
    states = [eqx.filter_eval_shape(start, params) for start in starts]
    steps = [traced(u, loss, params, s) for u, s in zip(pair, states, strict=True)]
    if filling <= _MOST_STEPS:
        apart = _apart(steps, starts, loss, params, filling + 2)
    else:
        late = [traced(lambda p, o=o: _late(o.init(p), filling), params) for o in both]
        apart = _apart(steps, late, loss, params, _FEW_STEPS)
    if isinstance(apart, Tracer) or float(apart) <= TOLERANCE:
        return
    raise ValueError(
        f"the optimizer's steps differ by {100 * float(apart):.2g} % from those of {method.name} "
        f"with learning_rate = {learning_rate:g}: give method=, such as igr.methods.heavy_ball(0.9)"
        " for optax.sgd(h, momentum=0.9), with the optimizer's own learning rate; or give the "
        "optimizer as a function of it, lambda h: optax.sgd(h, momentum=0.9), to have it read"
    )


def _late(state: Any, filling: int) -> Any:
    """The state with all its step counts set to `filling`."""
    return with_parts(state, count=filling)


def _updates_of(optimizer: optax.GradientTransformation) -> Callable[..., Any]:
    update = optax.with_extra_args_support(optimizer).update

    def updates(loss: Any, params: PyTree, state: Any) -> tuple[PyTree, Any]:
        value, gradient = jax.value_and_grad(lambda p: loss(p))(params)
        return update(gradient, state, params, value=value, grad=gradient, value_fn=loss)

    return updates


@compiled
def _apart(
    steps: list[Traced], starts: list[Traced], loss: Traced, params: PyTree, count: int
) -> Array:
    """The distance of the two updates in the last step, over the length of the optimizer's."""

    def both(carry: Any, _: None) -> tuple[Any, Array]:
        params, states = carry
        (u, first), (v, second) = (
            step(loss, params, state) for step, state in zip(steps, states, strict=True)
        )
        length = optax.tree.norm(u)
        difference = optax.tree.norm(optax.tree.sub(u, v))
        apart = jnp.where(difference > 0, difference / length, 0)
        return (optax.apply_updates(params, u), [first, second]), apart

    states = [start(params) for start in starts]
    return jax.lax.scan(both, (params, states), length=count)[1][-1]
