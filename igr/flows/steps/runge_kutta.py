"""One step of a Runge-Kutta method, as an optax transformation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from igr.backward_error.methods import RungeKutta
from igr.checks import Number
from igr.flows import kinds

_MOST_ITERATIONS = 200


@kinds.step_of.register
def _(
    method: RungeKutta, h: Number | Array, *, rates_at: Number | None = None
) -> optax.GradientTransformation:
    return runge_kutta_step(method, h)


def runge_kutta_step(
    method: RungeKutta, h: Number | Array
) -> optax.GradientTransformationExtraArgs:
    """The optax transformation with updates h sum_i b_i k_i of a Runge-Kutta method.

    The stages are k_i = f(theta + h sum_j a_ij k_j) with f = -grad E.

    Explicit stages follow one another; implicit ones are iterated to a fixed point until they
    stand still to rounding, which they do while h times the curvature stays below about one.

    Args:
      method: without open symbols.
      h: the step.

    Returns:
      A transformation whose `update` needs `params` and the extra argument `value_fn`.
    """
    A = [[float(a) for a in row] for row in method.A]
    b = [float(x) for x in method.b]

    def update(
        updates: PyTree,
        state: optax.EmptyState,
        params: PyTree | None = None,
        *,
        value_fn: Callable[[PyTree], Array] | None = None,
        **extra_args: Any,
    ) -> tuple[PyTree, optax.EmptyState]:
        del updates, extra_args
        if params is None or value_fn is None:
            raise ValueError(
                f"{method.name} evaluates its stages itself: update needs params and value_fn, "
                "as in optimizer.update(grads, state, params, value_fn=value_fn)"
            )

        def slope(at: PyTree) -> PyTree:
            return jax.tree.map(jnp.negative, jax.grad(value_fn)(at))

        def moved(slopes: list[PyTree], row: list[Number]) -> PyTree:
            at = params
            for a, k in zip(row, slopes, strict=False):
                if a:
                    at = jax.tree.map(lambda x, d, a=a: (x + h * a * d).astype(x.dtype), at, k)
            return at

        if method.explicit:
            slopes: list[PyTree] = []
            for row in A:
                slopes.append(slope(moved(slopes, row)))
        else:
            everywhere = [slope(params)] * len(b)
            slopes = _fixed_point(lambda ks: [slope(moved(ks, row)) for row in A], everywhere)
        end = moved(slopes, b)
        return jax.tree.map(jnp.subtract, end, params), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def _fixed_point(
    iterate: Callable[[list[PyTree]], list[PyTree]], start: list[PyTree]
) -> list[PyTree]:
    def changed(old: list[PyTree], new: list[PyTree]) -> Array:
        change = optax.tree.norm(optax.tree.sub(new, old))
        size = optax.tree.norm(new)
        return change > 4 * jnp.finfo(size.dtype).eps * size

    def condition(carry: tuple[Any, Any, Any]) -> Array:
        i, old, new = carry
        return (i < _MOST_ITERATIONS) & changed(old, new)

    def body(carry: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        i, _, new = carry
        return i + 1, new, iterate(new)

    return jax.lax.while_loop(condition, body, (0, start, iterate(start)))[2]
