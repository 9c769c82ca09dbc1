"""The field of order 1 from differences of whole steps, with the memory as part of the state.

Where an optimizer keeps averages of squares, derivatives fail at the kinks of a ReLU network: a
unit that becomes active has an average of 0, and the truncated field divides by its root before the
average has seen the gradient. The real step S does not. It is taken as it is, on the state z of
params and all of the memory, and the field follows from two steps,

    h F(z) = Delta(z - Delta(z)/2),      Delta(z) = S(z) - z,

which is log(1 + Delta) z to h^1, as z - Delta/2 is where the run was half a step ago. No derivative
of the gradient is in it, and no step that the optimizer would not take.

A state that is never negative is represented by its square root, which also moves smoothly near
zero, and half a step back the root is taken to be at least half as large.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from igr.backward_error.protocols import Method
from igr.checks import Number, check_step
from igr.flows import kinds
from igr.flows.kinds import Field, ValueFn
from igr.pytrees import combine, like_params, partition


def carried_field(
    method: Method, value_fn: ValueFn, h: Number | Array, unsigned: Collection[str] = ()
) -> Field:
    """The field of a method to h^1 on the state `(params, memory)`, from two of its steps.

    Args:
      method: without open symbols.
      value_fn: the loss E, `params -> scalar`.
      h: the step.
      unsigned: the kept states that are never negative, such as Adam's "nu".

    Returns:
      `f(t, (params, memory), args)`, memory as `rooted` makes it of the state of
      `igr.flows.optimizer_of(method, h)`.

    Gradient descent has no memory, and on x^2/2 with h = 0.1 goes down the gradient as it was half
    a step ago, at 1.05 x:

    >>> from igr.backward_error import methods
    >>> gd = methods.gradient_descent()
    >>> field = carried_field(gd, lambda x: x**2 / 2, 0.1)
    >>> memory = kinds.step_of(gd, 0.1).init(jnp.array(1.0))
    >>> print(field(0.0, (jnp.array(1.0), memory), None)[0].round(6))
    -1.05
    """
    h = check_step("h", h)
    optimizer = optax.with_extra_args_support(kinds.step_of(method, h))

    def field(t: Any, state: PyTree, args: Any = None) -> PyTree:
        del t, args
        params, memory = state
        dynamic, static = partition(params)

        def loss(p: PyTree) -> Array:
            return value_fn(combine(p, static))

        def change(z: PyTree) -> PyTree:
            p, m = z
            m = squared(m, unsigned)
            value, g = jax.value_and_grad(loss)(p)
            updates, after = optimizer.update(g, m, p, value=value, grad=g, value_fn=loss)
            following = optax.apply_updates(p, updates), rooted(after, unsigned)
            return jax.tree.map(jnp.subtract, following, z)

        here = dynamic, memory
        behind = jax.tree.map(
            lambda x, d: x - (d / 2).astype(x.dtype), here, change(here)
        )  # where the run was half a step ago
        behind = behind[0], _off_zero(behind[1], memory, unsigned)
        moved, remembered = jax.tree.map(lambda d: (d / h).astype(d.dtype), change(behind))
        return like_params(moved, params), remembered

    return field


def rooted(memory: Any, unsigned: Collection[str]) -> Any:
    """The memory with its nonnegative kept states replaced by their square roots."""
    return _kept(memory, unsigned, lambda x: jnp.sqrt(jnp.maximum(x, 0)))


def squared(memory: Any, unsigned: Collection[str]) -> Any:
    """The inverse of `rooted`: the memory with the roots squared."""
    return _kept(memory, unsigned, lambda x: x * x)


def _off_zero(memory: Any, now: Any, unsigned: Collection[str]) -> Any:
    """The memory half a step back, with each root at least half as large as at present.

    A unit that has just become active may be inactive there, and a root of 0 would be divided by.
    """
    return _kept(memory, unsigned, lambda x, y: jnp.maximum(jnp.abs(x), y / 2), now)


def _kept(memory: Any, names: Collection[str], change: Any, *others: Any) -> Any:
    if not names:
        return memory
    kept = {
        name: jax.tree.map(change, x, *(other.kept[name] for other in others))
        if name in names
        else x
        for name, x in memory.kept.items()
    }
    return memory._replace(kept=kept)
