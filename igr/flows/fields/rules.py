"""The field of a rule given as a function, by Taylor mode.

    F = -B(h D) Psi(W_1(h D) phi_1, .., W_r(h D) phi_r, y + .., theta),    B(z) = z/(e^z - 1),

D the derivative along F, needs nothing but derivatives in time along the unknown flow. They are
found in passes: with the derivatives of theta(t) up to the p-th known to the order
that matters, those of the gradient follow by nested `jax.jvp`, those of each channel as the sums
W_i(h d/dt) say, those of Psi by nested `jax.jvp` again, and -B(h d/dt) of them are the derivatives
of theta up to the next. One pass gives the field to h^0; each further pass adds a power of h. No
matrix is formed, whatever the rule couples.

The field agrees with the truncated series F_0 + .. + h^p F_p up to O(h^(p+1)): what Psi is handed
is the channel's expansion as it stands, not split by powers of h, so that a rule that is bounded
stays so. Derivatives leave kinks out: where clipping sets in, the field is that of the side it is
on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import sympy
from jaxtyping import Array, PyTree

from igr.backward_error.algebra.taylor import Z, taylor_coefficients
from igr.backward_error.rules.equation import RuleEquation
from igr.backward_error.rules.rule import Reading, RuleMethod, RuleState
from igr.checks import Number
from igr.flows import kinds
from igr.flows.steps.ema_decay import forgetting, share_taken_in
from igr.flows.steps.rules import check_direction, step_meant
from igr.forward_mode import jvp
from igr.pytrees import combine, like_params, partition

ValueFn = Callable[[PyTree], Array]
Derivatives = list[PyTree]  # of a quantity in time: itself, its first derivative, ..


@kinds.field_of.register
def _(
    eq: RuleEquation,
    value_fn: ValueFn,
    h: Number | Array,
    *,
    batches: PyTree | None = None,
    rates_at: Number | None = None,
) -> Callable[[Any, PyTree, Any], PyTree]:
    kinds.check_one_loss(eq, value_fn, batches)
    return rule_field(eq, value_fn, h, rates_at=rates_at)


def rule_field(
    eq: RuleEquation, value_fn: ValueFn, h: Number | Array, *, rates_at: Number | None = None
) -> Callable[[Any, PyTree, Any], PyTree]:
    """Compiles the equation of a rule to a vector field.

    At order p it evaluates derivatives of the gradient and of the rule up to the p-th: at order 1
    one gradient, one Hessian product, the rule and one derivative of it.

    Args:
      eq: from `igr.modified_equation`, its memories numbers.
      value_fn: the loss E, `params -> scalar`.
      h: the step.
      rates_at: the step that the rates of kept states are meant for, h if not given. They are
        fixed per unit of time.

    Returns:
      `f(t, state, args)`. The state is params where nothing is kept, else `(params, kept)` with
      `kept` a dictionary from the name of a kept state to its value. `t` is n h, with n the steps
      done since the optimizer's first.

    Raises:
      ValueError: when called, if the rule returns other shapes than those of params.
    """
    method = eq.method
    terms = eq.order + 1
    weights = {a: _numbers(c.transfer, terms) for a, c in method.channels}
    bernoulli = _numbers(Z / (sympy.exp(Z) - 1), terms)
    rates = {n: forgetting(rate, h, rates_at) for n, rate in method.rates}
    states = dict(method.states)

    def field(t: Any, state: PyTree, args: Any = None) -> PyTree:
        del args
        params, kept = state if states else (state, {})
        dynamic, static = partition(params)
        still = {y: eqx.partition(kept[y], eqx.is_inexact_array) for y in states}
        clock = jnp.asarray(t, jnp.result_type(jnp.float32, *jax.tree.leaves(dynamic)))
        fixed = {**rates, "h": h, "value_fn": lambda p: value_fn(combine(p, static))}

        def derived(curve: Derivatives) -> Derivatives:
            """The derivatives of params and kept states, from the first, along the flow."""
            read = _Read(method, curve, clock, h, fixed)
            read.update({f"{n}_before": [y[n] for _, y in curve] for n in states})
            velocity: dict[str, Derivatives] = {}
            for n in method.sequence:
                if n in states:
                    old = [y[n] for _, y in curve]
                    phi = read.of(states[n].of, {n: old}, step_meant(states[n], h, rates_at))
                    gained = _gained(states[n], old, phi, h, rates_at)
                    read[n] = [
                        jax.tree.map(jnp.add, a, b) for a, b in zip(old, gained, strict=True)
                    ]
                    velocity[n] = expand([b / h for b in bernoulli], gained, h)
                else:
                    read[n] = expand(weights[n], read.channel(n), h)
            psi = read.of(method.psi)
            check_direction(psi[0], dynamic, method.name)
            slopes = expand([-b for b in bernoulli], psi, h)
            return [
                (
                    _like(slope, dynamic),
                    {y: _like(velocity[y][j], moving) for y, (moving, _) in still.items()},
                )
                for j, slope in enumerate(slopes)
            ]

        start = dynamic, {y: moving for y, (moving, _) in still.items()}
        curve: Derivatives = [start]
        for _ in range(terms):
            curve = [start, *derived(curve)]
        slope, moved = curve[1]
        theta = like_params(slope, params)
        if not states:
            return theta
        return theta, {y: like_params(moved[y], kept[y]) for y in states}

    return field


def derivatives(function: Callable[[PyTree], PyTree], curve: Derivatives) -> Derivatives:
    """The time derivatives of a function along a curve, as many as are given of the curve.

    Args:
      function: a function of a pytree of floating arrays.
      curve: the pytree, and its first, second, .. derivative in time.

    >>> curve = [jnp.array(2.0), jnp.array(1.0), jnp.array(0.0)]
    >>> print(*derivatives(lambda x: x**3, curve))
    8.0 12.0 12.0
    """

    def with_one_more(level: Callable[..., Derivatives]) -> Callable[..., Derivatives]:
        def differentiated(x: PyTree, *xs: PyTree) -> Derivatives:
            values, slopes = jvp(level, (x, *xs[:-1]), xs)
            return [*values, slopes[-1]]

        return differentiated

    level: Callable[..., Derivatives] = lambda x: [function(x)]  # noqa: E731
    for _ in curve[1:]:
        level = with_one_more(level)
    return level(*curve)


def expand(weights: Sequence[Any], series: Derivatives, h: Number | Array) -> Derivatives:
    """The operator sum_k w_k (h d/dt)^k applied to a quantity, given with its time derivatives.

    >>> print(*expand([1.0, 10.0], [jnp.array(2.0), jnp.array(3.0)], 0.1))
    5.0 3.0
    """

    def one(j: int) -> PyTree:
        factors = [w * h**k if k else w for k, w in enumerate(weights[: len(series) - j])]

        def total(x: Array, *xs: Array) -> Array:
            found = factors[0] * x
            for w, y in zip(factors[1:], xs, strict=True):
                if not (isinstance(w, float) and w == 0.0):
                    found = found + w * y
            return found.astype(x.dtype)

        return jax.tree.map(total, *series[j:])

    return [one(j) for j in range(len(series))]


class _Read(dict[str, Derivatives]):
    """The quantities that a method's functions read, each with its time derivatives."""

    def __init__(
        self,
        method: RuleMethod,
        curve: Derivatives,
        clock: Array,
        h: Number | Array,
        fixed: Mapping[str, Any],
    ):
        super().__init__()
        self._fixed = fixed
        self._channels = dict(method.channels)
        theta = self["theta"] = [x for x, _ in curve]
        steady = [jnp.ones_like(clock), *[jnp.zeros_like(clock)] * len(curve)]
        self["t"] = [clock + jnp.asarray(h, clock.dtype), *steady[: len(curve) - 1]]
        if method.reads("g"):
            self["g"] = derivatives(jax.grad(fixed["value_fn"]), theta)

    def of(
        self, reading: Reading, own: Mapping[str, Derivatives] | None = None, h: Any = None
    ) -> Derivatives:
        """The time derivatives of a function, from those of the quantities it reads.

        `own` are further quantities that only this function reads.
        """
        series = {**self, **(own or {})}
        moving = [n for n in reading.names if n in series]
        known = self._fixed if h is None else {**self._fixed, "h": h}
        fixed = {n: known[n] for n in reading.names if n in known}
        depth = len(self["theta"])
        if not moving:
            value = reading(fixed)
            return [value, *[jax.tree.map(jnp.zeros_like, value)] * (depth - 1)]
        curve = [{n: series[n][j] for n in moving} for j in range(depth)]
        return derivatives(lambda values: reading({**fixed, **values}), curve)

    def channel(self, name: str) -> Derivatives:
        """The function phi that a channel remembers, with its time derivatives."""
        phi = self._channels[name].of
        return self["g"] if phi is None else self.of(phi)


def _gained(
    state: RuleState, old: Derivatives, phi: Derivatives, h: Number | Array, at: Number | None
) -> Derivatives:
    """The change of a kept state in a step, with its time derivatives."""
    if state.rate is None:
        return [jax.tree.map(lambda x: (h * x).astype(x.dtype), x) for x in phi]
    share = share_taken_in(state.rate, h, at)
    return [
        jax.tree.map(lambda x, y: (share * (x - y)).astype(y.dtype), new, before)
        for new, before in zip(phi, old, strict=True)
    ]


def _like(values: PyTree, like: PyTree) -> PyTree:
    return jax.tree.map(lambda x, y: x.astype(y.dtype), values, like)


def _numbers(function: sympy.Expr, terms: int) -> list[float]:
    return [float(c) for c in taylor_coefficients(function, terms)]
