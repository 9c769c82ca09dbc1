"""Methods with an elementwise rule: Adam, RMSProp and their like, from channels and a rule.

theta[n+1] = theta[n] - h Psi(a_1, .., a_r, theta[n]) with channels a_i = sum_k w_ik phi_i(g[n-k]),
each an elementwise function of the gradients seen, remembered with a transfer function W_i. A slow
channel, such as Adam's second moment at beta2 = 0.999, may be *kept* as a variable of the flow
instead: y[n+1] = y[n] + h kappa (phi(g[n]) - y[n]), read by the rule after its own update.

The modified field solves, order by order in h,

    F   = -B(h D) Psi(W_1(h D) phi_1, .., W_r(h D) phi_r, e^(h D) y, theta),
    F_y =  B(h D) kappa (phi - y),                       B(z) = z/(e^z - 1)

with D the derivative along both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import factorial
from typing import Any

import sympy

from igr.backward_error.linear import LinearMethod
from igr.backward_error.taylor import Z, exact, taylor_coefficients
from igr.backward_error.terms import THETA, Algebra, Contraction, G, T

Coefficients = list[sympy.Expr]  # of h^0, h^1, ..


@dataclass(frozen=True)
class Channel:
    """An elementwise function of the gradients seen, remembered linearly.

    Attributes:
      of: phi, an expression in `igr.methods.g` (and `theta`).
      transfer: W(z), as in `igr.methods.linear_memory`.
    """

    of: sympy.Expr
    transfer: sympy.Expr


@dataclass(frozen=True)
class Kept:
    """A slow average that stays a variable of the flow.

    Attributes:
      of: phi, an expression in `igr.methods.g` (and `theta`).
      rate: kappa h, the share of phi that enters in one step: 1 - beta.
    """

    of: sympy.Expr
    rate: sympy.Expr


@dataclass(frozen=True)
class ElementwiseMethod:
    """An optimizer as channels, kept states and an elementwise rule.

    Attributes:
      name: how the method calls itself in print and in errors.
      rule: Psi, an expression in the names of the channels and kept states, `g` and `theta`.
      channels: the channels by name.
      kept: the kept states by name.
      rates: symbols of the rule that stand for a number over h, and that number.
    """

    name: str
    rule: sympy.Expr
    channels: tuple[tuple[sympy.Symbol, Channel], ...]
    kept: tuple[tuple[sympy.Symbol, Kept], ...] = ()
    rates: tuple[tuple[sympy.Symbol, sympy.Expr], ...] = ()

    @property
    def memories(self) -> tuple[LinearMethod, ...]:
        """What each channel remembers, as a linear method of its own."""
        return tuple(
            LinearMethod(f"{self.name}, channel {a}", channel.transfer)
            for a, channel in self.channels
        )

    @property
    def parameters(self) -> tuple[sympy.Symbol, ...]:
        """The symbols left open, such as beta."""
        own = {G, THETA, T, Z, *(s for s, _ in (*self.channels, *self.kept, *self.rates))}
        free = set(self.rule.free_symbols)
        for _, channel in self.channels:
            free |= channel.of.free_symbols | channel.transfer.free_symbols
        for _, state in self.kept:
            free |= state.of.free_symbols | state.rate.free_symbols
        for _, rate in self.rates:
            free |= rate.free_symbols
        return tuple(sorted(free - own, key=str))


def elementwise(
    rule: Any,
    channels: Mapping[str, tuple[Any, Any]],
    kept: Mapping[str, tuple[Any, Any]] | None = None,
    rates: Mapping[str, Any] | None = None,
    name: str = "elementwise method",
) -> ElementwiseMethod:
    """Describes an optimizer by an elementwise rule on what it remembers.

    Args:
      rule: Psi, a sympy expression in symbols named as the channels and kept states, and in
        `igr.methods.g` and `igr.methods.theta`; theta[n+1] = theta[n] - h Psi.
      channels: name -> (phi, W): an expression in g, and its transfer function in z.
      kept: name -> (phi, rate): an average y <- y + rate (phi - y) that stays a variable of the
        flow. The rule reads it after its update.
      rates: name -> r: a symbol of the rule that stands for r/h. With the time `t` = (n + 1) h of
        a step, exp(-name t) = e^(-r (n + 1)) is how a bias correction forgets.
      name: for print.

    Returns:
      A method for `igr.modified_equation`.

    Raises:
      ValueError: if the rule does not read a channel that is given, or names clash. A name of the
        rule that is no channel is a parameter, and must get a number before a field is compiled.

    Sign descent with momentum, smoothed:

    >>> from sympy import exp, sqrt, Symbol
    >>> from igr.backward_error.methods import g, z
    >>> m, e = Symbol("m"), Symbol("epsilon", positive=True)
    >>> lion = elementwise(m / sqrt(m**2 + e), {"m": (g, (1 - 0.9) / (1 - 0.9 * exp(-z)))})
    >>> lion.parameters
    (epsilon,)
    """
    kept, rates = kept or {}, rates or {}
    clash = set(channels) & set(kept) | {"g", "theta", "t", "z", "h"} & {
        *channels,
        *kept,
        *rates,
    }
    if clash:
        raise ValueError(
            "channel names must differ from one another and from g, theta, t, z, h; "
            f"got {', '.join(sorted(clash))}"
        )
    psi = exact(rule, "rule")
    names = {s.name: s for s in psi.free_symbols}
    standing = {n: sympy.Symbol(n) for n in (*channels, *kept)}
    standing |= {n: sympy.Symbol(n, positive=True) for n in rates}
    psi = psi.xreplace({s: standing[n] for n, s in names.items() if n in standing})
    psi = _own(psi)
    unread = [n for n in (*channels, *kept) if n not in names]
    if unread:
        raise ValueError(f"the rule does not read the channel {', '.join(unread)}: {rule}")
    return ElementwiseMethod(
        name,
        psi,
        tuple(
            (standing[n], Channel(_own(exact(phi, n)), exact(transfer, n)))
            for n, (phi, transfer) in channels.items()
        ),
        tuple(
            (standing[n], Kept(_own(exact(phi, n)), exact(rate, n)))
            for n, (phi, rate) in kept.items()
        ),
        tuple((standing[n], exact(rate, n)) for n, rate in rates.items()),
    )


@dataclass(frozen=True, repr=False)
class ElementwiseEquation:
    """theta' = sum_k h^k F_k, and y' = sum_k h^k F_{y,k} for each kept state.

    Attributes:
      name: the method.
      order: the highest power of h kept.
      field: F_0, .., F_order, expressions of the term algebra.
      kept: F_{y,0}, .. for each kept state. Rates appear as rate/h: see `rates`.
      contractions: what the symbols of contractions stand for.
      rates: the symbol of kappa for each kept state -> kappa h, a number.
    """

    name: str
    order: int
    field: tuple[sympy.Expr, ...]
    kept: Mapping[sympy.Symbol, tuple[sympy.Expr, ...]]
    contractions: Mapping[sympy.Symbol, Contraction]
    rates: Mapping[sympy.Symbol, sympy.Expr]

    @property
    def parameters(self) -> tuple[sympy.Symbol, ...]:
        """The symbols left open."""
        own = {THETA, G, T, *self.kept, *self.contractions, *self.rates}
        free: set[Any] = set()
        for part in (self.field, *self.kept.values()):
            for expression in part:
                free |= expression.free_symbols
        for rate in self.rates.values():
            free |= rate.free_symbols
        for contraction in self.contractions.values():
            for vector in contraction.vectors:
                free |= vector.free_symbols
        return tuple(sorted(free - own, key=str))

    def truncate(self, order: int) -> ElementwiseEquation:
        """The same equation with fewer powers of h."""
        if not 0 <= order <= self.order:
            raise ValueError(f"order is from 0 to {self.order}, that of the equation; got {order}")
        kept = {y: part[: order + 1] for y, part in self.kept.items()}
        return ElementwiseEquation(
            self.name, order, self.field[: order + 1], kept, self.contractions, self.rates
        )

    def on(self, loss: sympy.Expr, params: tuple[sympy.Symbol, ...], h: Any) -> sympy.Matrix:
        """The field in closed form on a sympy loss; kept states appear with an index.

        Args:
          loss: E, an expression in `params`.
          params: the m parameters.
          h: the step.

        Returns:
          The field of theta, an m x 1 Matrix.
        """
        vectors: dict[sympy.Symbol, list[sympy.Expr]] = {
            THETA: list(params),
            G: [sympy.diff(loss, p) for p in params],
            **{y: [sympy.Symbol(f"{y}_{p}") for p in params] for y in self.kept},
        }

        def value(expression: sympy.Expr) -> list[sympy.Expr]:
            for atom in expression.free_symbols & set(self.contractions):
                if atom not in vectors:
                    vectors[atom] = contraction(self.contractions[atom])
            present = [a for a in expression.free_symbols if a in vectors]
            return [
                expression.xreplace({a: vectors[a][i] for a in present}) for i in range(len(params))
            ]

        def contraction(which: Contraction) -> list[sympy.Expr]:
            along = [value(v) for v in which.vectors]
            scalar, held = loss, {}
            for direction in along:
                dummies = [sympy.Dummy() for _ in params]
                held.update(zip(dummies, direction, strict=True))
                scalar = sum(
                    d * sympy.diff(scalar, p) for d, p in zip(dummies, params, strict=True)
                )
            return [sympy.diff(scalar, p).xreplace(held) for p in params]

        h = sympy.sympify(h)
        rates = {kappa: rate / h for kappa, rate in self.rates.items()}
        total = sympy.zeros(len(params), 1)
        for k, expression in enumerate(self.field):
            total += h**k * sympy.Matrix(value(expression)).xreplace(rates)
        return total

    def __repr__(self) -> str:
        return f"<modified equation of {self.name}, order {self.order}>"


def elementwise_equation(method: ElementwiseMethod, order: int) -> ElementwiseEquation:
    """Solves the master equation for a method with an elementwise rule."""
    algebra = Algebra(tuple(y for y, _ in method.kept))
    kappas = [sympy.Symbol(f"kappa_{y}", positive=True) for y, _ in method.kept]
    rates = dict(zip(kappas, (state.rate for _, state in method.kept), strict=True))
    rates |= dict(method.rates)
    terms = order + 1
    bernoulli = taylor_coefficients(Z / (sympy.exp(Z) - 1), terms)
    transfers = {a: taylor_coefficients(c.transfer, terms) for a, c in method.channels}
    field: Coefficients = []
    states: dict[sympy.Symbol, Coefficients] = {y: [] for y, _ in method.kept}

    def advance(series: Coefficients) -> Coefficients:
        """h D of a series: the coefficient of h^k sums D_i X_l over i + l = k - 1."""
        result = [sympy.Integer(0)]
        for k in range(1, len(series)):
            result.append(
                sum(
                    (
                        algebra.derivative(
                            series[k - 1 - i],
                            field[i],
                            {y: s[i] for y, s in states.items()},
                            first=i == 0,
                        )
                        for i in range(k)
                    ),
                    sympy.Integer(0),
                )
            )
        return result

    def operator(coefficients: Coefficients, series: Coefficients) -> Coefficients:
        """sum_j c_j (h D)^j of a series."""
        total = [coefficients[0] * x for x in series]
        power = series
        for c in coefficients[1 : len(series)]:
            power = advance(power)
            total = [t + c * x for t, x in zip(total, power, strict=True)]
        return total

    for k in range(terms):

        def constant(x: sympy.Expr, k: int = k) -> Coefficients:
            return [x] + [sympy.Integer(0)] * k

        read = {a: operator(transfers[a], constant(c.of)) for a, c in method.channels}
        exponential = [sympy.Rational(1, factorial(j)) for j in range(k + 1)]
        read |= {y: operator(exponential, constant(y)) for y, _ in method.kept}
        read[T] = operator(exponential, constant(T))
        psi = _compose(method.rule, read, k)
        new = -operator(bernoulli, psi)[k]
        slow = {
            y: operator(bernoulli, constant(kappa * (state.of - y)))[k]
            for (y, state), kappa in zip(method.kept, kappas, strict=True)
        }
        field.append(algebra.tidy(new))
        for y, expression in slow.items():
            states[y].append(algebra.tidy(expression))
    return ElementwiseEquation(
        method.name,
        order,
        tuple(field),
        {y: tuple(s) for y, s in states.items()},
        dict(algebra.contractions),
        rates,
    )


def _compose(
    rule: sympy.Expr, read: Mapping[sympy.Symbol, Coefficients], order: int
) -> Coefficients:
    """Taylor coefficients in h of the rule on channels that are series in h."""
    h = sympy.Dummy("h")
    held: dict[sympy.Symbol, sympy.Expr] = {}
    moving = {}
    for a, series in read.items():
        dummies = [sympy.Dummy() for _ in series]
        held.update(zip(dummies, series, strict=True))
        moving[a] = sum(d * h**k for k, d in enumerate(dummies))
    result, current = [], rule.xreplace(moving)
    for k in range(order + 1):
        result.append(current.xreplace({h: sympy.Integer(0)}).xreplace(held) / factorial(k))
        current = sympy.diff(current, h)
    return result


def _own(expression: sympy.Expr) -> sympy.Expr:
    """Reads any symbols named g and theta as the ones of the algebra."""
    own = {"g": G, "theta": THETA, "t": T}
    return expression.xreplace({s: own[s.name] for s in expression.free_symbols if s.name in own})
