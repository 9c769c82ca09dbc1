"""Methods with an elementwise rule, such as Adam and RMSProp, from channels and a formula.

theta[n+1] = theta[n] - h Psi(a_1, .., a_r, theta[n]) with channels a_i = sum_k w_ik phi_i(g[n-k]),
each an elementwise function of the gradients seen, remembered with a transfer function W_i. A slow
channel, such as Adam's second moment at beta2 = 0.999, may be *kept* as a variable of the flow
instead: y[n+1] = y[n] + h kappa (phi(g[n]) - y[n]), read by the rule after its own update.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import sympy

from igr.backward_error.algebra.orders import check_order
from igr.backward_error.algebra.taylor import Z, exact, taylor_coefficients
from igr.backward_error.methods.linear import LinearMethod
from igr.backward_error.protocols import Memory
from igr.backward_error.response import GradientResponse, gradient_response
from igr.backward_error.terms.algebra import THETA, G, T
from igr.backward_error.terms.equation import ElementwiseEquation
from igr.backward_error.terms.recursion import elementwise_equation
from igr.checks import Count

_OWN = {"g": G, "theta": THETA, "t": T}
_TAKEN = re.compile(r"g|theta|t|z|h|[LS]\d+|kappa_.*")  # the algebra's own symbols


@dataclass(frozen=True)
class Channel:
    """A linear memory of an elementwise function phi of the gradient.

    Attributes:
      of: phi, an expression in `igr.methods.g` and `theta`, and in other channels and kept states.
      transfer: W(z), as in `igr.methods.linear_memory`.
    """

    of: sympy.Expr
    transfer: sympy.Expr


@dataclass(frozen=True)
class Kept:
    """An optimizer state that is a variable of the flow, read by the rule after its update.

    Attributes:
      of: phi, an expression in `igr.methods.g` and `theta`, in channels and kept states after
        their update, and in kept states before it (see `before`).
      rate: kappa h, the share of phi that enters in one step: 1 - beta for an average. None for
        y <- y + h phi.
      init: the state before the first step, an expression in `theta`.
    """

    of: sympy.Expr
    rate: sympy.Expr | None
    init: sympy.Expr = sympy.S.Zero


def before(state: sympy.Symbol | str) -> sympy.Symbol:
    """The symbol of a kept state before its update; the state's own symbol is its updated value."""
    return sympy.Symbol(f"{state}_before")


@dataclass(frozen=True)
class ElementwiseMethod:
    """An optimizer whose step is an elementwise formula in what it remembers.

    Attributes:
      name: how the method calls itself in print and in errors.
      rule: Psi, an expression in the names of the channels and kept states, `g` and `theta`.
      channels: the channels by name.
      states: the kept states by name.
      rates: pairs (symbol, r): the symbol stands for r/h in the rule.
    """

    name: str
    rule: sympy.Expr
    channels: tuple[tuple[sympy.Symbol, Channel], ...]
    states: tuple[tuple[sympy.Symbol, Kept], ...] = ()
    rates: tuple[tuple[sympy.Symbol, sympy.Expr], ...] = ()

    @staticmethod
    def before(state: sympy.Symbol) -> sympy.Symbol:
        """The symbol of a kept state before its update."""
        return before(state)

    @property
    def memories(self) -> tuple[LinearMethod, ...]:
        """Each channel's memory as a `LinearMethod`, in the order of the channels."""
        return tuple(
            LinearMethod(f"{self.name}, channel {a}", channel.transfer)
            for a, channel in self.channels
        )

    @property
    def kept(self) -> tuple[str, ...]:
        """The names of the optimizer states that are variables of the flow, as in optax."""
        return tuple(str(y) for y, _ in self.states)

    @property
    def parameters(self) -> tuple[sympy.Symbol, ...]:
        """The free symbols, such as beta, sorted by name."""
        own = {G, THETA, T, Z, *(s for s, _ in (*self.channels, *self.states, *self.rates))}
        own |= {before(y) for y, _ in self.states}
        free = set(self.rule.free_symbols)
        for _, channel in self.channels:
            free |= channel.of.free_symbols | channel.transfer.free_symbols
        for _, state in self.states:
            free |= state.of.free_symbols | state.init.free_symbols
            free |= state.rate.free_symbols if state.rate is not None else set()
        for _, rate in self.rates:
            free |= rate.free_symbols
        return tuple(sorted(free - own, key=str))

    @property
    def sequence(self) -> tuple[tuple[sympy.Symbol, Channel | Kept], ...]:
        """The channels and kept states, each after those whose new value it reads."""
        parts = dict((*self.channels, *self.states))
        waiting = {s: part.of.free_symbols & parts.keys() for s, part in parts.items()}
        done: list[tuple[sympy.Symbol, Channel | Kept]] = []
        while waiting:
            ready = [s for s, reads in waiting.items() if not reads & waiting.keys()]
            if not ready:
                raise ValueError(
                    f"{', '.join(map(str, waiting))} read each other: a channel or kept state "
                    "reads the new values of others"
                )
            done += [(s, parts[s]) for s in ready]
            waiting = {s: reads for s, reads in waiting.items() if s not in ready}
        return tuple(done)

    def equation(self, order: Count) -> ElementwiseEquation:
        """The modified equation with terms up to h^order."""
        return elementwise_equation(self, check_order(order))

    def memory(self) -> Memory:
        """The slowest decay and longest reach of the channels; kept states do not count.

        Raises:
          ValueError: if the method has open symbols.
        """
        found = [memory.memory() for memory in self.memories]
        return Memory(
            max((m.fading for m in found), default=0.0), max((m.steps for m in found), default=0)
        )

    def response(self) -> GradientResponse | None:
        """The preconditioned linear method it is near a point: see `gradient_response`."""
        return gradient_response(self)


def elementwise(
    rule: Any,
    channels: Mapping[str, tuple[Any, Any]],
    kept: Mapping[str, tuple[Any, ...]] | None = None,
    rates: Mapping[str, Any] | None = None,
    *,
    parameters: Iterable[Any] = (),
    name: str = "elementwise method",
) -> ElementwiseMethod:
    """Describes an optimizer by an elementwise formula in what it remembers.

    Args:
      rule: Psi, a sympy expression in symbols named as the channels and kept states, and in
        `igr.methods.g` and `igr.methods.theta`; theta[n+1] = theta[n] - h Psi.
      channels: name -> (phi, W): an expression in g, and its transfer function in z. It may read
        other channels and kept states, at the same step.
      kept: name -> (phi, rate): an average y <- y + rate (phi - y) that stays a variable of the
        flow; phi reads its old value by the state's own name, so that with a rate of 1 it is any
        y <- phi(y, ..). With a rate of None, y <- y + h phi. Everything else reads it after its
        update, and before it as `name_before`. A third entry is what it starts from, a number or
        an expression in `theta`, 0 if not given.
      rates: name -> r: a symbol of the rule that stands for r/h, as a bias correction needs it:
        exp(-name t) = e^(-r (n + 1)) at the time `t` = (n + 1) h of a step.
      parameters: the other symbols, or their names, that expressions may contain; they must get a
        number before a field is compiled.
      name: for print.

    Returns:
      A method for `igr.modified_equation`.

    Raises:
      ValueError: if the rule does not read a channel that is given, reads one that is not, names
        clash, or two memories read each other's new values.

    Sign descent with momentum, smoothed:

    >>> from sympy import exp, sqrt, Symbol
    >>> from igr.backward_error.methods import g, z
    >>> m, e = Symbol("m"), Symbol("epsilon")
    >>> signum = elementwise(
    ...     m / sqrt(m**2 + e), {"m": (g, (1 - 0.9) / (1 - 0.9 * exp(-z)))}, parameters=[e]
    ... )
    >>> signum.parameters
    (epsilon,)
    """
    kept, rates = kept or {}, rates or {}
    _check_names(channels, kept, rates)
    standing = {n: sympy.Symbol(n) for n in (*channels, *kept)}
    standing |= {n: sympy.Symbol(n, positive=True) for n in rates}
    standing |= {before(n).name: before(n) for n in kept}
    open_names = {getattr(p, "name", p) for p in parameters}

    def read(expression: Any, argument: str, known: Iterable[str]) -> sympy.Expr:
        """The exact expression, checked to contain only known symbols."""
        found = exact(expression, argument)
        known = set(known)
        strange = {s.name for s in found.free_symbols} - known - set(_OWN) - open_names
        if strange:
            raise ValueError(
                f"{argument} reads {', '.join(sorted(strange))}, which is no channel: there "
                f"{'are' if known else 'is'} {', '.join([*sorted(known), *_OWN])}. A symbol that "
                "is to stay open belongs in parameters="
            )
        own = {**{n: s for n, s in standing.items() if n in known}, **_OWN}
        return found.xreplace({s: own[s.name] for s in found.free_symbols if s.name in own})

    others = {n: standing.keys() - {n} for n in (*channels, *kept)}
    memories = []
    for n, (phi, transfer) in channels.items():
        weights = exact(transfer, f"the transfer function of {n}")
        _check_open(weights, n, {"z", *open_names})
        taylor_coefficients(weights, 1)  # says so where the weights have no finite sum
        memories.append((standing[n], Channel(read(phi, n, others[n]), weights)))
    states = []
    for n, described in kept.items():
        if not isinstance(described, tuple) or len(described) not in (2, 3):
            raise TypeError(f"the kept state {n} is (phi, rate) or (phi, rate, start)")
        phi, rate, init = (*described, 0)[:3]
        share = None if rate is None else exact(rate, f"the rate of {n}")
        if share is not None:
            _check_open(share, n, open_names)
            if share.is_number and not (share.is_real and 0 < share <= 1):
                raise ValueError(
                    f"the rate of {n} must be a number in (0, 1], or None; got {rate}."
                )
        of = read(phi, n, standing).xreplace({standing[n]: before(n)})
        start = read(init, f"the start of {n}", ())
        states.append((standing[n], Kept(of, share, start)))
    psi = read(rule, "the rule", standing)
    parts = (*memories, *states)
    used = psi.free_symbols.union(*(p.of.free_symbols - {before(s)} for s, p in parts))
    unread = [n for n in (*channels, *kept) if not used & {standing[n], before(n)}]
    if unread:
        raise ValueError(f"the rule does not read the channel {', '.join(unread)}: {rule}")
    method = ElementwiseMethod(
        name,
        psi,
        tuple(memories),
        tuple(states),
        tuple((standing[n], exact(rate, n)) for n, rate in rates.items()),
    )
    _ = method.sequence  # says so where two read each other
    return method


def _check_names(*groups: Mapping[str, Any]) -> None:
    names = [n for group in groups for n in group]
    names += [before(n).name for n in groups[1]]
    clash = {n for n in names if _TAKEN.fullmatch(n) or names.count(n) > 1}
    if clash:
        raise ValueError(
            "channel names must differ from one another and from g, theta, t, z, h, L0, L1, .., "
            f"S0, S1, .. and kappa_..; got {', '.join(sorted(clash))}"
        )


def _check_open(expression: sympy.Expr, of: str, allowed: set[str]) -> None:
    strange = {s.name for s in expression.free_symbols} - allowed
    if strange:
        raise ValueError(
            f"the memory of {of} reads {', '.join(sorted(strange))}, which is no number: a symbol "
            "that is to stay open belongs in parameters="
        )
