"""From a modified equation to a vector field on a params pytree.

No matrix is ever formed: a field is nested `jax.jvp` of `jax.grad(value_fn)`, planned in
`differentials` so that a field of any order has one Hessian product at its top.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import optax
import sympy
from jaxtyping import Array, PyTree

from igr.backward_error import ModifiedEquation, trees
from igr.backward_error.protocols import Equation
from igr.backward_error.trees.gradient import Gradient
from igr.backward_error.trees.series import step_powers
from igr.checks import check_step
from igr.flows import kinds
from igr.flows.fields.differentials import Differentials, add, scale
from igr.pytrees import combine, floating, like_params

ValueFn = Callable[[PyTree], Array]
Field = Callable[[Any, PyTree, Any], PyTree]


def vector_field(
    eq: Equation,
    value_fn: Callable[..., Array] | Sequence[ValueFn],
    h: float | Array,
    batches: PyTree | None = None,
) -> Field:
    """Compiles a modified equation to a vector field.

    Args:
      eq: from `igr.modified_equation`, its coefficients numbers.
      value_fn: the loss E, `params -> scalar`; for SGD in epochs that of one batch,
        `(params, batch) -> scalar`; for two players the pair of their losses, each
        `(theta, phi) -> scalar` of the pair of their params as one argument.
      h: the step the equation is for; a positive number, or an array under a transformation.
      batches: for SGD in epochs, the batches: a pytree of arrays with a leading axis of as many as
        the equation is for.

    Returns:
      `f(t, params, args)`, autonomous, with the structure, shapes and dtypes of params: it goes
      straight into `diffrax.ODETerm`. Integer leaves get zeros, static leaves pass through. Where
      the method keeps states, as `igr.methods.adam()` does, the field is one of `(params, kept)`,
      with `kept` a dictionary by the states' names, and t is n h. For two players it is one of
      the pair `(theta, phi)`.

    Raises:
      ValueError: if `h` is not positive and finite, or the equation has open symbols.
      TypeError: if `eq` is not an equation or `value_fn` is not callable.

    On E = x^2/2 gradient descent multiplies x by 1 - h in every step, so the field is
    log(1 - h)/h x = -(1 + h/2 + h^2/3 + ...) x:

    >>> import jax.numpy as jnp
    >>> from igr.backward_error import methods, modified_equation
    >>> eq = modified_equation(methods.gradient_descent(), order=2)
    >>> field = vector_field(eq, lambda x: jnp.sum(x**2) / 2, h=0.1)
    >>> round(float(field(0.0, jnp.array([1.0]), None)[0]), 9)
    -1.053333333
    """
    check_step("h", h)
    return kinds.field_of(eq, value_fn, h, batches=batches)


@kinds.field_of.register
def _(
    eq: ModifiedEquation,
    value_fn: ValueFn,
    h: float | Array,
    *,
    batches: PyTree | None = None,
    rates_at: float | None = None,
) -> Field:
    kinds.check_no_batches(eq, batches)
    coefficients = field_coefficients(eq)
    kinds.check_value_fn(eq, value_fn)

    def field(t: Any, params: PyTree, args: Any = None) -> PyTree:
        del t, args
        dynamic, static = floating(params)
        at = Differentials(_scaled_gradient(value_fn, static, h, eq.gradient), dynamic)
        total = scale(1 / h, at.combination(coefficients.get(0, {})))
        for power, further in coefficients.items():
            if power > 0:
                total = add(total, scale(h ** (power - 1), at.combination(further)))
        return like_params(total, params)

    return field


def modified_value_fn(
    eq: Equation,
    value_fn: Callable[..., Array],
    h: float | Array,
    batches: PyTree | None = None,
) -> ValueFn:
    """The modified loss as a function of params, where the certificate allows one.

    For gradient descent at order 1 it is E + h/4 |grad E|^2 (Barrett and Dherin 2021,
    Theorem 3.1).

    Args:
      eq: from `igr.modified_equation`; a gradient up to its order.
      value_fn: the loss E, `params -> scalar`; for SGD in epochs that of one batch,
        `(params, batch) -> scalar`.
      h: the step.
      batches: for SGD in epochs, the batches, as in `vector_field`.

    Returns:
      `params -> scalar`, differentiable; its negative gradient is `vector_field(eq, ...)`.

    Raises:
      NotAGradientError: if the method follows no modified loss at this order.
    """
    check_step("h", h)
    return kinds.value_fn_of(eq, value_fn, h, batches=batches)


@kinds.value_fn_of.register
def _(
    eq: ModifiedEquation, value_fn: ValueFn, h: float | Array, *, batches: PyTree | None = None
) -> ValueFn:
    kinds.check_no_batches(eq, batches)
    modified = eq.modified_loss()
    kinds.check_numbers(eq)
    kinds.check_value_fn(eq, value_fn)
    # A free tree is evaluated as the inner product of the two sides of its most central edge.
    weights = [
        (power, float(c), _central_edge(trees.intern(tree)))
        for tree, polynomial in modified.coefficients.items()
        for power, c in step_powers(polynomial)
    ]

    def modified_value(params: PyTree) -> Array:
        dynamic, static = floating(params)

        at = Differentials(_scaled_gradient(value_fn, static, h, eq.gradient), dynamic)
        value = _with_decay(value_fn, eq.gradient, static)(dynamic)
        total = jnp.zeros_like(value)
        for power, c, halves in weights:
            c = c * h**power if power else c
            if halves is None:
                total = total + jnp.asarray(c * value, total.dtype)
            else:
                left, right = (at.combination({t: Fraction(1)}) for t in halves)
                total = total + (c / h * optax.tree.vdot(left, right)).astype(total.dtype)
        return total

    return modified_value


def field_coefficients(eq: ModifiedEquation) -> dict[int, dict[int, Fraction]]:
    """The coefficients of an equation over g, by integer tree, by the powers of h they go with.

    The power counts what stands beside the h^(|t|-1) of every tree: 0 but for weight decay.
    """
    kinds.check_numbers(eq)
    found: dict[int, dict[int, Fraction]] = {}
    for t, b in eq.weights.items():
        for power, c in step_powers(eq.domain.to_sympy(b)):
            signed = (-1) ** trees.size(t) * _fraction(c) / trees.sigma(t)
            found.setdefault(power, {})[t] = signed
    return found


def _central_edge(t: int) -> tuple[int, int] | None:
    """The rooted halves of a tree at the edge that leaves the smaller larger half."""
    if t == trees.LEAF:
        return None
    best = None
    for root in trees.rooted_alike(t):
        for child in set(trees.children(root)):
            rest = list(trees.children(root))
            rest.remove(child)
            halves = child, trees.index(tuple(rest))
            largest = max(map(trees.size, halves))
            if best is None or largest < best[0]:
                best = largest, halves
    assert best is not None
    return best[1]


def _fraction(number: sympy.Expr) -> Fraction:
    """Exact for a rational, else the nearest double (a beta such as sqrt(1/2))."""
    if number.is_Rational:
        return Fraction(int(number.p), int(number.q))
    return Fraction(float(number))


def _scaled_gradient(
    value_fn: ValueFn, static: PyTree, h: float | Array, which: Gradient
) -> Callable[[PyTree], PyTree]:
    gradient = jax.grad(_with_decay(value_fn, which, static))
    if not which.displaced:
        return lambda p: scale(h, gradient(p))
    rho = float(which.rho)

    def uphill(params: PyTree) -> PyTree:
        direction = gradient(params)
        norm = optax.tree.norm(direction) if which.normalized else jnp.ones(())
        way = rho / jnp.where(norm > 0, norm, 1)
        return scale(h, gradient(add(params, scale(way, direction))))

    return uphill


def _with_decay(value_fn: ValueFn, which: Gradient, static: PyTree) -> ValueFn:
    """E + c |theta|^2/2 on the floating leaves."""
    decay = float(which.decay)

    def value(dynamic: PyTree) -> Array:
        found = value_fn(combine(dynamic, static))
        if not decay:
            return found
        square = optax.tree.norm(dynamic, squared=True)
        return found + (decay / 2 * square).astype(found.dtype)

    return value
