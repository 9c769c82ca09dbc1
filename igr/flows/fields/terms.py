"""The field of a method with an elementwise rule, on params and kept states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import sympy
from jaxtyping import Array, PyTree

from igr.backward_error.algebra.taylor import STEP
from igr.backward_error.terms.algebra import THETA, Contraction, G, T
from igr.backward_error.terms.certificate import SQUARE
from igr.backward_error.terms.equation import ElementwiseEquation
from igr.backward_error.terms.loss import PreconditionedLoss
from igr.checks import Number
from igr.flows import kinds
from igr.flows.fields.differentials import directional
from igr.flows.fields.lambdify import LeafFunctions
from igr.flows.steps.ema_decay import forgetting, share_taken_in
from igr.pytrees import combine, inner_product, like_params, partition

ValueFn = Callable[[PyTree], Array]


@kinds.field_of.register
def _(
    eq: ElementwiseEquation,
    value_fn: ValueFn,
    h: Number | Array,
    *,
    batches: PyTree | None = None,
    rates_at: Number | None = None,
) -> Callable[[Any, PyTree, Any], PyTree]:
    kinds.check_one_loss(eq, value_fn, batches)
    return elementwise_field(eq, value_fn, h, rates_at=rates_at)


@kinds.value_fn_of.register
def _(
    eq: ElementwiseEquation, value_fn: ValueFn, h: Number | Array, *, batches: PyTree | None = None
) -> Callable[..., Array]:
    kinds.check_no_batches(eq, batches)
    modified = eq.modified_loss()
    kinds.check_numbers(eq)
    kinds.check_value_fn(eq, value_fn)
    return preconditioned_value_fn(modified, value_fn, h)


def preconditioned_value_fn(
    modified: PreconditionedLoss, value_fn: ValueFn, h: Number | Array
) -> Callable[..., Array]:
    """Compiles the modified loss of an elementwise method.

    Args:
      modified: from `eq.modified_loss()`, its coefficients numbers.
      value_fn: the loss E, `params -> scalar`.
      h: the step.

    Returns:
      `f(state, t)`, the state being `(params, kept)` where states are kept, else params, as in
      `vector_field`. `t` is n h, for the bias corrections; if not given they are 1. The field is -P
      times its gradient in params at fixed kept states.
    """
    parts = loss_and_penalty(modified, value_fn, h)

    def value(state: PyTree, t: Number | Array = jnp.inf) -> Array:
        total, added = parts(state, t)
        return total + added

    return value


def loss_and_penalty(
    modified: PreconditionedLoss, value_fn: ValueFn, h: Number | Array
) -> Callable[..., tuple[Array, Array]]:
    """Compiles E and the penalty, the two summands of an elementwise method's modified loss.

    Args:
      modified: as in `preconditioned_value_fn`.
      value_fn: the loss E, `params -> scalar`.
      h: the step.

    Returns:
      `f(state, t)`, the pair of both, scalars of the dtype of E.
    """
    rates = {symbol: forgetting(rate, h, None) for symbol, rate in modified.rates.items()}
    functions = LeafFunctions()
    psi = _in_steps(modified.penalty, G, _STEPPED / STEP)
    phi = _in_steps(modified.of_length, SQUARE, SQUARE / STEP**2)
    in_steps = phi != modified.of_length
    of_length = sympy.lambdify([SQUARE, STEP], phi, modules="jax")

    def parts(state: PyTree, t: Number | Array = jnp.inf) -> tuple[Array, Array]:
        params, kept = state if modified.states else (state, {})
        dynamic, static = partition(params)
        total, gradient = jax.value_and_grad(lambda p: value_fn(combine(p, static)))(dynamic)
        scalars = {**rates, T: t, STEP: h}
        penalty = jnp.zeros_like(total)
        stepped = jax.tree.map(lambda g: (h * g).astype(g.dtype), gradient)
        if psi != 0:
            vectors = {THETA: dynamic, G: gradient, _STEPPED: stepped}
            vectors |= {y: partition(kept[str(y)])[0] for y in modified.states}
            added = functions(psi, vectors, scalars, dynamic)
            penalty = penalty + optax.tree.sum(added).astype(total.dtype)
        if phi != 0:
            square = optax.tree.norm(stepped if in_steps else gradient, squared=True)
            penalty = penalty + of_length(square, h).astype(total.dtype)
        return total, penalty

    return parts


def _in_steps(expression: sympy.Expr, of: sympy.Symbol, by: sympy.Expr) -> sympy.Expr:
    """A polynomial in g as one in h g, whose square cannot overflow; another expression as is."""
    return expression.xreplace({of: by}) if expression.is_polynomial(of) else expression


def elementwise_field(
    eq: ElementwiseEquation,
    value_fn: ValueFn,
    h: Number | Array,
    *,
    rates_at: Number | None = None,
) -> Callable[[Any, PyTree, Any], PyTree]:
    """Compiles the equation of an elementwise method to a vector field.

    Args:
      eq: from `igr.modified_equation`, its coefficients numbers.
      value_fn: the loss E, `params -> scalar`.
      h: the step.
      rates_at: the step that the rates of kept states are meant for, h if not given. They are
        fixed per unit of time.

    Returns:
      `f(t, state, args)`. The state is params where nothing is kept, else `(params, kept)` with
      `kept` a dictionary from the name of a kept state to a pytree like params. `t` is n h, with n
      the steps done since the optimizer's first: a bias correction reads it.
    """
    averages = {f"kappa_{y}" for y in eq.states}
    rates = {
        symbol: share_taken_in(rate, h, rates_at) / h
        if str(symbol) in averages
        else forgetting(rate, h, rates_at)
        for symbol, rate in eq.rates.items()
    }
    functions = LeafFunctions()
    squares = _averages_of_squares(eq)

    def lifted(y: sympy.Symbol, values: PyTree) -> PyTree:
        """The values, for an average of squares kept off zero where a weight is never used."""
        if y not in squares:
            return values
        least = 1 / (eq.order + 1)  # F_k has nu^(-k - 1/2), which must not overflow
        return jax.tree.map(lambda x: jnp.maximum(x, jnp.finfo(x.dtype).tiny ** least), values)

    def field(t: Any, state: PyTree, args: Any = None) -> PyTree:
        del args
        params, kept = _apart(state, [*map(str, eq.states)]) if eq.states else (state, {})
        dynamic, static = partition(params)
        gradient = jax.grad(lambda p: value_fn(combine(p, static)))
        vectors: dict[sympy.Symbol, PyTree] = {THETA: dynamic, G: gradient(dynamic)}
        vectors[_OFF_ZERO] = jax.tree.map(lambda x: jnp.where(x == 0, 1, x), vectors[G])
        vectors |= {y: lifted(y, partition(kept[str(y)])[0]) for y in eq.states}
        scalars = {**rates, T: t}

        def value(expression: sympy.Expr) -> PyTree:
            for atom in sorted(expression.free_symbols, key=str):
                if atom in eq.contractions and atom not in vectors:
                    vectors[atom] = contraction(eq.contractions[atom])
                elif atom in eq.products and atom not in scalars:
                    a, b = map(value, eq.products[atom])
                    scalars[atom] = inner_product(a, b)
            return functions(_without_poles(expression), vectors, scalars, dynamic)

        def contraction(which: Contraction) -> PyTree:
            derivative = gradient
            for direction in [value(v) for v in which.vectors]:
                derivative = directional(derivative, direction)
            found = derivative(dynamic)
            if not eq.states:
                return found
            # What is made of the kept states, such as their roots, is made again afterwards: to
            # hold it while the derivative is taken would be an array of their size more.
            kept = [vectors[y] for y in eq.states]
            found, kept = jax.lax.optimization_barrier((found, kept))
            vectors.update(zip(eq.states, kept, strict=True))
            return found

        def series(coefficients: tuple[sympy.Expr, ...]) -> PyTree:
            # The highest power first: what takes derivatives comes before what is elementwise.
            values = [value(coefficient) for coefficient in reversed(coefficients)]
            total = jax.tree.map(jnp.zeros_like, dynamic)
            for k, found in enumerate(reversed(values)):
                total = jax.tree.map(lambda x, y, k=k: (x + h**k * y).astype(x.dtype), total, found)
            return total

        theta = like_params(series(eq.field), params)
        if not eq.states:
            return theta
        return theta, {
            str(y): like_params(series(part), kept[str(y)]) for y, part in eq.states.items()
        }

    return field


def _apart(state: Any, names: list[str]) -> tuple[PyTree, dict[str, PyTree]]:
    """The params and the kept states of a state; raises `TypeError` unless both are there."""
    pair = isinstance(state, tuple | list) and len(state) == 2 and isinstance(state[1], dict)
    if not pair or not set(names) <= set(state[1]):
        named = ", ".join(f"{name!r}: ..." for name in names)
        raise TypeError(
            f"the state of this field must be (params, {{{named}}}), each like params; got "
            f"{jax.tree.structure(state)}."
        )
    return state[0], state[1]


_STEPPED = sympy.Symbol("g_stepped")
_OFF_ZERO = sympy.Symbol("g_off_zero")


def _without_poles(expression: sympy.Expr) -> sympy.Expr:
    """The same function, with g/sqrt(g^2) and its like 0 at g = 0, where a weight is unused."""
    poles = {
        p: p.xreplace({G: _OFF_ZERO})
        for p in expression.atoms(sympy.Pow)
        if p.has(G) and p.exp.is_negative and p.base.xreplace({G: sympy.Integer(0)}) == 0
    }
    return expression.xreplace(poles)


def _averages_of_squares(eq: ElementwiseEquation) -> set[sympy.Symbol]:
    """The symbols of kept states that cannot be negative, from F_y = kappa (phi - y) + O(h)."""
    found = set()
    for y, part in eq.states.items():
        kappa = sympy.Symbol(f"kappa_{y}", positive=True)
        if not part[0].has(kappa):
            continue
        phi = sympy.expand(part[0] / kappa + y)
        real = {s: sympy.Dummy(real=True) for s in phi.free_symbols if not s.is_positive}
        real[y] = sympy.Dummy(nonnegative=True)  # it starts so, and stays so then
        if phi.xreplace(real).is_nonnegative:
            found.add(y)
    return found
