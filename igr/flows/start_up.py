"""The flow of a method with memory from a cold start, by step-dependent weights or a shift."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, TypeGuard

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from igr.backward_error import trees
from igr.backward_error.methods.linear import LinearMethod
from igr.backward_error.start_up import initial_shift, starting_fields
from igr.checks import Number
from igr.compiled import Traced, compiled
from igr.flows.fields.differentials import Differentials, add, scale
from igr.flows.runnable import time_like, traced_loss
from igr.meshes import on_any_mesh
from igr.pytrees import combine, partition

ValueFn = Callable[[PyTree], Array]


def has_first_steps(method: Any) -> TypeGuard[LinearMethod]:
    """Whether the fields of the method's first steps are known, as for every linear method."""
    return isinstance(method, LinearMethod)


def flow_while_filling(
    method: LinearMethod, order: int, value_fn: ValueFn, params: PyTree, h: Number, steps: int
) -> PyTree:
    """The params after each of the first steps, by the flow of that step's own field.

    Args:
      method: a linear method, whose memory is empty at the start.
      order: the highest power of h kept.
      value_fn: the loss E, `params -> scalar`.
      params: the start.
      h: the step.
      steps: the number of first steps.

    Returns:
      The params after 0, 1, .., `steps` steps: floating leaves have a leading axis of steps + 1.
    """
    fields = starting_fields(method, order, steps)
    present = sorted({t for field in fields for t in field})
    coefficients = np.array([[_over_gradient(f.get(t, 0.0), t) for t in present] for f in fields])
    dynamic, static = partition(params)
    loss = traced_loss(value_fn, params)
    dtype = jnp.result_type(*jax.tree.leaves(dynamic))
    weights = np.asarray(coefficients, dtype)
    return combine(_follow(tuple(present), loss, dynamic, weights, time_like(h, dynamic)), static)


@compiled
@on_any_mesh(like=2)
def _follow(
    present: tuple[int, ...], loss: Traced, start: PyTree, coefficients: Array, h: Array
) -> PyTree:
    gradient = jax.grad(lambda p: loss(p))

    def field(t: Array, p: PyTree, weights: Array) -> PyTree:
        del t
        at = Differentials(lambda q: scale(h, gradient(q)), p)
        total = jax.tree.map(jnp.zeros_like, p)
        for weight, tree in zip(weights, present, strict=True):
            term = at.combination({tree: Fraction(1)})
            total = jax.tree.map(lambda a, b, w=weight: a + (w * b).astype(a.dtype), total, term)
        return total

    solver, term = diffrax.Dopri8(), diffrax.ODETerm(field)  # pyright: ignore[reportArgumentType]

    def advance(p: PyTree, weights: Array) -> tuple[PyTree, PyTree]:
        # Time runs from 0 to 1 within each step: the field is h F.
        state = solver.init(term, 0.0, 1.0, p, weights)
        p = solver.step(term, 0.0, 1.0, p, weights, state, False)[0]
        return p, p

    _, visited = jax.lax.scan(advance, start, coefficients)
    return jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), start, visited)


def shifted_start(
    method: LinearMethod, order: int, value_fn: ValueFn, params: PyTree, h: Number, steps: int
) -> PyTree:
    """The params from which the flow meets the run once its start-up is over.

    Args:
      method: a linear method, whose memory is empty at params.
      order: the highest power of h kept in the equation that is followed.
      value_fn: the loss E, `params -> scalar`.
      params: the start of the run.
      h: the step.
      steps: the number of steps after which the start-up is taken to be over.
    """
    shift = initial_shift(method, order, steps)
    dynamic, static = partition(params)
    wanted = {t: _over_gradient(w, t) for t, w in shift.items()}
    moved = _moved(wanted, traced_loss(value_fn, params), dynamic, time_like(h, dynamic))
    return combine(moved, static)


@compiled
def _moved(shift: dict[int, Number], loss: Traced, params: PyTree, h: Array) -> PyTree:
    gradient = jax.grad(lambda p: loss(p))
    at = Differentials(lambda q: scale(h, gradient(q)), params)
    return add(params, at.combination({t: Fraction(w) for t, w in shift.items()}))


def _over_gradient(weight: Number, tree: int) -> float:
    """The coefficient of a tree's differential over grad E, from its weight over -grad E."""
    return (-1) ** trees.size(tree) * weight / trees.sigma(tree)
