"""The mean iterate of an optimizer with a memory whose batches come in random order, once an epoch.

theta <- theta - h Psi, Psi = sum_i c_i(y, theta) a_i + c(y, theta) with channels
a_i = sum_k w_ik phi_i(g_b[n-k]) and kept averages y <- y + h kappa (phi_y(g_b[n]) - y): Adam with
its second moment kept, and every linear memory. In the mean a channel remembers the mean of phi_i
over the m batches, which gives the equation of a method of one loss. To it the order of the
batches adds, at h^1, what two gradients seen in one epoch have in common. With Cov the covariance
over batches and rho_s that of two of them s steps apart in units of it,

    rho_0 = 1,    rho_s = -(m - s)/(m (m - 1)) for s < m,    0 beyond

(of an epoch's m steps m - s have a partner s steps on, and two batches of one epoch are never the
same), the fluctuation of params, -h sum_j (Psi[n-j] - E Psi), meets that of the gradients, and the
fluctuation of the averages that of the channels:

    F_1 += sum_i c_i W_i(0) E[phi_i' H_b u_b] - sum_iy (dc_i/dy) kappa q_i Cov(phi_y, phi_i)
    y'  += -h kappa E[phi_y' H_b u_b],    u_b = sum_i rA_i c_i (phi_i(g_b) - E phi_i)

with rA_i = sum_(s>0) rho_s (w_i0 + .. + w_i(s-1)) and q_i = sum_k w_ik sum_(j>=0) rho_|j-k|. For
heavy ball this is `igr.methods.reshuffled_sgd(m, momentum=..)`; without memory it is the term of
Smith, Dherin, Barrett and De (2021), for rA = -1/2.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import sympy
from jaxtyping import Array, PyTree

from igr.backward_error.methods import rule
from igr.backward_error.methods.linear import LinearMethod
from igr.backward_error.protocols import UnansweredError
from igr.backward_error.terms.algebra import THETA, G, T
from igr.backward_error.terms.elementwise import ElementwiseMethod, elementwise
from igr.checks import check_count, check_step, check_value_fn
from igr.flows.fields.lambdify import LeafFunctions
from igr.flows.fields.rules import rule_field
from igr.flows.steps.ema_decay import forgetting, share_taken_in
from igr.pytrees import combine, like_params, num_examples, partition

BatchLossFn = Callable[[PyTree, PyTree], Array]

_LAST = sympy.Symbol("g_now")  # the channel that the gradient of the step itself is


def reshuffled_field(
    method: ElementwiseMethod | LinearMethod,
    batch_loss_fn: BatchLossFn,
    h: float | Array,
    batches: PyTree,
    *,
    order: int = 1,
    rates_at: float | None = None,
) -> Callable[[Any, PyTree, Any], PyTree]:
    """The field that the mean of an optimizer follows, each batch seen once an epoch.

    Args:
      method: a linear memory, or an elementwise rule such as Adam's with its second moment kept;
        `igr.from_optax` reads one of an optimizer. The rule is linear in what is eliminated.
      batch_loss_fn: `(params, batch) -> scalar`.
      h: the step.
      batches: the m batches of an epoch, a pytree of arrays with a leading axis of m.
      order: 0 or 1.
      rates_at: the step that the rates of kept states are meant for, h if not given.

    Returns:
      `f(t, state, args)` for `igr.flow`, the state and t as of `igr.vector_field`. At order 1 it
      costs, for every batch, two gradients and two Hessian products a channel and kept state.

    Raises:
      TypeError: if `method` is no such method.
      ValueError: if the order is above 1, from where on the spread of the iterates matters.
      UnansweredError: if the rule is not linear in what it eliminates: its mean over the orders is
        then no function of the means of the channels.

    >>> from igr.backward_error import methods
    >>> batches = jnp.array([1.0, 3.0])
    >>> loss = lambda x, a: a * x**2 / 2
    >>> field = reshuffled_field(methods.heavy_ball(0.5), loss, 0.1, batches)
    >>> print(field(0.0, jnp.array(1.0), None).round(1))  # -2 g - h (5 H g + <H_k g_k>)
    -6.5
    """
    described = _described(method)
    order = check_count("order", order, 0)
    if order > 1:
        raise ValueError(
            f"the mean of {described.name} over orders of its batches is known up to h^1, got "
            f"order {order}: beyond, the spread of the iterates moves it"
        )
    check_step("h", h)
    check_value_fn(batch_loss_fn)
    m = num_examples(batches, "batches")
    _check(described)
    functions = LeafFunctions()

    def of_batches(expression: sympy.Expr, params: PyTree) -> PyTree:
        """phi of the gradient of every batch, with a leading axis of m."""
        return jax.vmap(lambda batch: _of_batch(expression, params, batch))(batches)

    def _of_batch(expression: sympy.Expr, params: PyTree, batch: PyTree) -> PyTree:
        dynamic, static = partition(params)
        gradient = jax.grad(lambda p: batch_loss_fn(combine(p, static), batch))(dynamic)
        return functions(expression, {G: gradient, THETA: dynamic}, {}, dynamic)

    mean_field = rule_field(
        _in_the_mean(described, of_batches, functions).equation(order),
        lambda p: optax.tree.sum(p),
        h,
        rates_at=rates_at,
    )
    if order == 0 or m == 1:
        return mean_field
    channels, states = dict(described.channels), dict(described.states)
    weights = {
        a: _weights(memory, m)
        for (a, _), memory in zip(described.channels, described.memories, strict=True)
    }
    total = {
        a: float(channel.transfer.subs(sympy.Symbol("z"), 0)) for a, channel in channels.items()
    }
    moved = {a: _meets(w, m) for a, w in weights.items()}
    before = {described.before(y): y for y in states}
    rates = {s: forgetting(rate, h, rates_at) for s, rate in described.rates}
    slopes = {a: sympy.diff(described.rule, a) for a in channels}

    def field(t: Any, state: PyTree, args: Any = None) -> PyTree:
        params, kept = state if states else (state, {})
        dynamic, static = partition(params)
        vectors: dict[sympy.Symbol, PyTree] = {THETA: dynamic}
        vectors |= {y: partition(kept[str(y)])[0] for y in states}
        vectors |= {b: vectors[y] for b, y in before.items()}
        scalars = {**rates, T: t + h}

        def value(expression: sympy.Expr) -> PyTree:
            return functions(expression, vectors, scalars, dynamic)

        apart = {a: _centred(of_batches(c.of, params)) for a, c in channels.items()}
        factors = {a: value(slopes[a]) for a in channels}
        along = _sum(_times(factors[a], apart[a], moved[a]) for a in channels)

        def met(expression: sympy.Expr) -> PyTree:
            """E[phi' H_b u_b]."""

            def one(batch: PyTree, u: PyTree) -> PyTree:
                phi = lambda p: _of_batch(expression, combine(p, static), batch)  # noqa: E731
                return jax.jvp(phi, (dynamic,), (u,))[1]

            return jax.tree.map(lambda x: jnp.mean(x, 0), jax.vmap(one)(batches, along))

        added = _sum(_times(factors[a], met(c.of), h * total[a]) for a, c in channels.items())
        drifts = {}
        for y, part in states.items():
            share = share_taken_in(part.rate, h, rates_at)
            apart_y = _centred(of_batches(part.of, params))
            drifts[str(y)] = jax.tree.map(lambda x, s=share: -s * x, met(part.of))
            for a in channels:
                common = jax.tree.map(lambda x, z: jnp.mean(x * z, 0), apart_y, apart[a])
                for read, now in ((y, True), (described.before(y), False)):
                    bend = sympy.diff(slopes[a], read)
                    if bend != 0:
                        q = _shared(weights[a], m, now)
                        # A weight that no batch uses stands still, whatever root nu has at 0.
                        bent = jax.tree.map(
                            lambda b, x: jnp.where(x == 0, 0, b), value(bend), common
                        )
                        added = _sum((added, _times(bent, common, -share * q)))
        base = mean_field(t, state, args)
        theta, others = base if states else (base, {})
        theta = jax.tree.map(
            lambda x, y: (x + y).astype(x.dtype), theta, like_params(added, params)
        )
        if not states:
            return theta
        return theta, {
            y: jax.tree.map(
                lambda x, d: (x + d).astype(x.dtype), value, like_params(drifts[y], kept[y])
            )
            for y, value in others.items()
        }

    return field


def _described(method: Any) -> ElementwiseMethod:
    """The method with the gradient of the step itself as a channel, like those before it."""
    if isinstance(method, LinearMethod):
        if method.rho != 0:
            raise UnansweredError(
                f"{method.name} takes its gradient beside params: its mean over the orders of "
                "batches is not known here"
            )
        m = sympy.Symbol("m")
        direction = m + method.weight_decay * THETA
        method = elementwise(direction, {"m": (G, method.transfer)}, name=method.name)
    if not isinstance(method, ElementwiseMethod):
        raise TypeError(
            "method is a linear memory or an elementwise rule, from igr.methods or "
            f"igr.from_optax; got {method!r}"
        )
    if not method.rule.has(G):
        return method
    rates = {s.name: rate for s, rate in method.rates}
    return elementwise(
        method.rule.xreplace({G: _LAST}),
        {_LAST.name: (G, 1), **{str(a): (c.of, c.transfer) for a, c in method.channels}},
        {str(y): (_own(method, y, k.of), k.rate, k.init) for y, k in method.states},
        rates,
        name=method.name,
    )


def _own(method: ElementwiseMethod, y: sympy.Symbol, of: sympy.Expr) -> sympy.Expr:
    return of.xreplace({method.before(y): y})


def _check(method: ElementwiseMethod) -> None:
    channels = [a for a, _ in method.channels]
    where = (
        "its mean over the orders of batches is then no function of their means. Keep it as a "
        "variable: igr.from_optax(.., keep=..)"
    )
    for a in channels:
        slope = sympy.diff(method.rule, a)
        bent = [b for b in channels if slope.has(b) and sympy.simplify(sympy.diff(slope, b)) != 0]
        if bent:
            raise UnansweredError(
                f"{method.name} is not linear in {bent[0]}, which it eliminates: {where}"
            )
    for name, part in (*method.channels, *method.states):
        beyond = sorted(map(str, part.of.free_symbols - {G, THETA}))
        if beyond:
            raise UnansweredError(
                f"the memory {name} of {method.name} reads {', '.join(beyond)}, and not the "
                "gradient of one batch and params alone: the mean over orders of batches of such "
                "a memory is not known here"
            )
    for y, part in method.states:
        if part.rate is None or part.rate == 1:
            raise UnansweredError(
                f"the state {y} of {method.name} is no average that forgets: the mean over orders "
                "of batches is not known here"
            )


def _in_the_mean(
    method: ElementwiseMethod, of_batches: Callable[..., PyTree], functions: LeafFunctions
) -> Any:
    """The method of one loss that remembers the means over batches."""

    def mean_of(expression: sympy.Expr) -> Callable[..., PyTree]:
        return lambda theta: jax.tree.map(lambda x: jnp.mean(x, 0), of_batches(expression, theta))

    psi = _ByName(method.rule, functions, {s.name for s, _ in method.rates})
    channels = {str(a): (mean_of(c.of), c.transfer) for a, c in method.channels}
    kept = {
        str(y): (mean_of(k.of), k.rate, lambda p, k=k: functions(k.init, {THETA: p}, {}, p))
        for y, k in method.states
    }
    rates = {s.name: r for s, r in method.rates}
    return rule(psi, channels, kept, rates, name=f"{method.name}, reshuffled")


class _ByName:
    """An elementwise expression as a function of what it reads, by name."""

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
        return self._functions(self._expression, vectors, scalars, values["theta"])


def _weights(memory: LinearMethod, m: int) -> list[float]:
    """w_0 .. w_(m-1)."""
    b, a = memory.recurrence
    found: list[float] = []
    for k in range(m):
        earlier = sum(float(a[i]) * found[k - i] for i in range(1, min(k, len(a) - 1) + 1))
        found.append((float(b[k]) if k < len(b) else 0.0) - earlier)
    return found


def _rho(s: int, m: int) -> float:
    return 1.0 if s == 0 else -max(m - s, 0) / (m * (m - 1))


def _meets(weights: list[float], m: int) -> float:
    """rA: how far the gradient of a batch has moved params when another of its epoch is seen."""
    return sum(_rho(s, m) * sum(weights[:s]) for s in range(1, m))


def _shared(weights: list[float], m: int, now: bool) -> float:
    """q: how much of a channel was seen in what an average has taken in, this step's or not."""
    found = 0.0
    for k, w in enumerate(weights):
        since = (
            1.0 + sum(_rho(s, m) for s in range(1, k + 1)) + sum(_rho(s, m) for s in range(1, m))
        )
        found += w * (since if now else since - _rho(k, m))
    return found


def _centred(values: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x - jnp.mean(x, 0), values)


def _times(factor: PyTree, values: PyTree, number: Any) -> PyTree:
    return jax.tree.map(lambda f, x: number * f * x, factor, values)


def _sum(trees: Any) -> PyTree:
    first, *rest = trees
    for tree in rest:
        first = jax.tree.map(jnp.add, first, tree)
    return first
