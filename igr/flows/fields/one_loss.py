"""The field and the modified loss of an equation over one loss."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from igr.backward_error import ModifiedEquation, trees
from igr.backward_error.trees.one_loss import Gradient
from igr.backward_error.trees.powers import step_powers
from igr.checks import Number
from igr.curvature import vectors
from igr.flows import kinds
from igr.flows.fields.differentials import Differentials, add, scale
from igr.flows.fields.trees import central_edge, field_coefficients, field_over, value_fn_over
from igr.flows.kinds import Field, ValueFn
from igr.pytrees import combine, inner_product, like_params, partition


@field_over.register
def _(
    which: Gradient,
    eq: ModifiedEquation,
    value_fn: ValueFn,
    h: Number | Array,
    batches: PyTree | None,
) -> Field:
    kinds.check_no_batches(eq, batches)
    coefficients = field_coefficients(eq)
    kinds.check_value_fn(eq, value_fn)

    def field(t: Any, params: PyTree, args: Any = None) -> PyTree:
        del t, args
        dynamic, static = partition(params)
        at = Differentials(_scaled_gradient(value_fn, static, h, which), dynamic)
        total = scale(1 / h, at.combination(coefficients.get(0, {})))
        for power, further in coefficients.items():
            if power > 0:
                total = add(total, scale(h ** (power - 1), at.combination(further)))
        return like_params(total, params)

    return field


@value_fn_over.register
def _(
    which: Gradient,
    eq: ModifiedEquation,
    value_fn: ValueFn,
    h: Number | Array,
    batches: PyTree | None,
) -> ValueFn:
    kinds.check_no_batches(eq, batches)
    modified = eq.modified_loss()
    kinds.check_numbers(eq)
    kinds.check_value_fn(eq, value_fn)
    # A free tree is evaluated as the inner product of the two sides of its most central edge.
    weights = [
        (power, float(c), central_edge(trees.intern(tree)))
        for tree, polynomial in modified.coefficients.items()
        for power, c in step_powers(polynomial)
    ]

    def modified_value(params: PyTree) -> Array:
        dynamic, static = partition(params)
        at = Differentials(_scaled_gradient(value_fn, static, h, which), dynamic)
        value = _with_decay(value_fn, which, static)(dynamic)
        total = jnp.zeros_like(value)
        for power, c, halves in weights:
            c = c * h**power if power else c
            if halves is None:
                total = total + jnp.asarray(c * value, total.dtype)
            else:
                left, right = (at.combination({t: Fraction(1)}) for t in halves)
                total = total + (c / h * inner_product(left, right)).astype(total.dtype)
        return total

    return modified_value


def _scaled_gradient(
    value_fn: ValueFn, static: PyTree, h: Number | Array, which: Gradient
) -> Callable[[PyTree], PyTree]:
    gradient = jax.grad(_with_decay(value_fn, which, static))
    if not which.displaced:
        return lambda p: scale(h, gradient(p))
    rho = float(which.rho)

    def sam_gradient(params: PyTree) -> PyTree:
        direction = gradient(params)
        norm = vectors.norm(direction) if which.normalized else jnp.ones(())
        way = rho / jnp.where(norm > 0, norm, 1)
        return scale(h, gradient(add(params, scale(way, direction))))

    return sam_gradient


def _with_decay(value_fn: ValueFn, which: Gradient, static: PyTree) -> ValueFn:
    """The loss E + c |theta|^2/2 as a function of the floating leaves."""
    decay = float(which.decay)

    def value(dynamic: PyTree) -> Array:
        found = value_fn(combine(dynamic, static))
        if not decay:
            return found
        square = optax.tree.norm(dynamic, squared=True)
        return found + (decay / 2 * square).astype(found.dtype)

    return value
