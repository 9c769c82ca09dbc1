"""Turns any method of one loss into a rule of a batch's gradient, memories and kept states."""

from __future__ import annotations

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import sympy
from jaxtyping import PyTree

from igr.backward_error.methods import rule
from igr.backward_error.methods.linear import LinearMethod
from igr.backward_error.protocols import UnansweredError, is_method
from igr.backward_error.rules.rule import RuleMethod
from igr.backward_error.terms.algebra import G
from igr.backward_error.terms.elementwise import ElementwiseMethod
from igr.flows.fields.lambdify import LeafFunctions


def as_rule(method: Any, *, affine: bool = True) -> RuleMethod:
    """The method as a `RuleMethod`, a function of a batch's gradient and of its memories.

    Args:
      method: a linear memory, an elementwise rule or a rule; or an optax optimizer as a function of
        the learning rate.
      affine: whether to refuse a formula that is not linear in an eliminated memory.

    Raises:
      TypeError: if `method` is none of these.
      ValueError: if it has open symbols.
      UnansweredError: if it takes its gradient at SAM's point, or is refused by `affine`.
    """
    if not is_method(method) and callable(method) and not isinstance(method, type):
        from igr.flows.from_optax import from_optax

        method = from_optax(method)
    if isinstance(method, LinearMethod):
        found = _of_linear(method)
    elif isinstance(method, ElementwiseMethod):
        if affine:
            _check_linear(method)
        found = _of_elementwise(method)
    elif isinstance(method, RuleMethod):
        found = method
    else:
        raise TypeError(
            "method must be a linear memory, an elementwise rule or a rule, from igr.methods or "
            "igr.from_optax, or an optax optimizer as a function of the learning rate; got "
            f"{method!r}."
        )
    if method.parameters:
        raise ValueError(
            f"{method.name} has open symbols, {', '.join(map(str, method.parameters))}: a field "
            "needs a number for each"
        )
    return found


def _of_linear(method: LinearMethod) -> RuleMethod:
    if method.rho != 0:
        raise UnansweredError(
            f"{method.name} takes its gradient beside params: what it does with batches is not "
            "known here"
        )
    decay = 0 if method.weight_decay.free_symbols else float(method.weight_decay)

    def psi(m: PyTree, theta: PyTree) -> PyTree:
        return jax.tree.map(lambda x, p: x + decay * p if decay else x, m, theta)

    return rule(psi, {"m": method.transfer}, name=method.name)


def not_linear(name: str, what: str) -> UnansweredError:
    """The error for a rule that is not linear in an eliminated memory."""
    return UnansweredError(
        f"{name} is not linear in {what}: its mean over the batches is then no function of what "
        f"its memories hold in the mean: {INSTEAD}"
    )


INSTEAD = (
    "average over sequences of batches, sequences=64 and key=, or keep the memory as a variable, "
    "igr.from_optax(.., keep=..)"
)


def _check_linear(method: ElementwiseMethod) -> None:
    channels = [a for a, _ in method.channels]
    for a in channels:
        slope = sympy.diff(method.rule, a)
        for b in (*channels, G):
            if slope.has(b) and sympy.simplify(sympy.diff(slope, b)) != 0:
                what = f"{b}, which it eliminates" if b != G else f"g and {a}"
                raise not_linear(method.name, what)


def _of_elementwise(method: ElementwiseMethod) -> RuleMethod:
    functions, rates = LeafFunctions(), {s.name for s, _ in method.rates}

    def function(expression: sympy.Expr) -> _ByName:
        return _ByName(expression, functions, rates)

    channels = {
        str(a): (None if c.of == G else function(c.of), c.transfer) for a, c in method.channels
    }
    kept = {
        str(y): (
            function(k.of.xreplace({method.before(y): y})),
            k.rate,
            lambda p, k=k: functions(k.init, {sympy.Symbol("theta"): p}, {}, p),
        )
        for y, k in method.states
    }
    given = {a: t if of is None else (of, t) for a, (of, t) in channels.items()}
    return rule(
        function(method.rule),
        given,
        kept,
        {s.name: r for s, r in method.rates},
        name=method.name,
    )


class _ByName:
    """An elementwise expression as a function of the quantities it reads, by keyword."""

    def __init__(self, expression: sympy.Expr, functions: LeafFunctions, scalars: set[str]):
        self._expression, self._functions = expression, functions
        self._symbols = {s.name: s for s in expression.free_symbols}
        self._scalars = {*scalars, "t"}
        kind = inspect.Parameter.KEYWORD_ONLY
        names = sorted({*self._symbols, "theta"})
        self.__signature__ = inspect.Signature([inspect.Parameter(n, kind) for n in names])

    def __call__(self, **values: Any) -> PyTree:
        known = {self._symbols[n]: x for n, x in values.items() if n in self._symbols}
        scalars = {s: x for s, x in known.items() if s.name in self._scalars}
        vectors = {s: x for s, x in known.items() if s.name not in self._scalars}
        like = jax.tree.map(jnp.asarray, values["theta"])
        return self._functions(self._expression, vectors, scalars, like)
