"""The modified field of a black-box step function, from its iterates."""

from __future__ import annotations

from collections.abc import Callable
from math import comb
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from igr.checks import Count, Number, check_count, check_step
from igr.missing_parts import of_whole
from igr.pytrees import combine, like_params, partition

Field = Callable[[Any, PyTree, Any], PyTree]


def interpolating_field(
    step_fn: Callable[[PyTree], PyTree], order: Count, h: Number | Array
) -> Field:
    """The vector field whose flow interpolates the iterates of a memoryless step function.

    With Delta the forward difference of the iterates theta, step(theta), step(step(theta)), ..,

        h F = log(1 + Delta) theta = sum_j (-1)^(j-1)/j Delta^j theta,    j = 1 .. order + 1

    which is the modified field of the step to h^order, at the cost of order + 1 steps and without a
    derivative of the gradient. Memory: order copies of params, which a compiler may hold at
    once, besides the result and what a step needs.

    Args:
      step_fn: one step of the optimizer, `params -> params`.
      order: the highest power of h kept, at least 0.
      h: the time that one step takes.

    Returns:
      `f(t, params, args)` in the form of `igr.vector_field`.

    Raises:
      ValueError: if `order` is negative or `h` is not positive and finite.
      TypeError: if `step_fn` is not callable.

    The halving map x -> x/2 has the field log(1/2) x for h = 1, and this is its Taylor series:

    >>> field = interpolating_field(lambda x: x / 2, order=2, h=1.0)
    >>> round(float(field(0.0, jnp.array(1.0), None)), 9)  # -(1/2 + 1/8 + 1/24)
    -0.666666667
    """
    order = check_count("order", order, 0)
    h = check_step("h", h)
    if not callable(step_fn):
        raise TypeError(f"step_fn must be a function params -> params; got {step_fn!r}.")
    weights = _difference_weights(order + 1)

    def field(t: Any, params: PyTree, args: Any = None) -> PyTree:
        del t, args
        at, static = partition(params)
        total = jax.tree.map(jnp.zeros_like, at)
        for weight in weights:
            following = partition(of_whole(step_fn, combine(at, static)))[0]
            # Differences of neighbours lose fewer digits than a sum of the iterates themselves.
            total = jax.tree.map(
                lambda s, new, old, w=weight: (s + (w / h) * (new - old)).astype(s.dtype),
                total,
                following,
                at,
            )
            at = following
        return like_params(total, params)

    return field


def _difference_weights(steps: int) -> list[float]:
    """The w_i with sum_j (-1)^(j-1)/j Delta^j theta_0 = sum_i w_i (theta_(i+1) - theta_i)."""
    weights = [0.0] * steps
    for j in range(1, steps + 1):
        for i in range(j):
            # Delta^j theta_0 = sum_i (-1)^(j-1-i) C(j-1, i) (theta_(i+1) - theta_i)
            weights[i] += (-1) ** i * comb(j - 1, i) / j
    return weights
