"""The response of an elementwise rule to a small change of the gradient, slow states held fixed.

Near a point, with kept states and averages of nonlinear functions of the gradient standing still,
theta[n+1] = theta[n] - h Psi(.., a, ..) is a linear method preconditioned by dPsi/da, a being what
the rule reads of the gradient itself. Adam is averaged momentum preconditioned by
1/(sqrt(nu) + eps): its limits are those of h times the *preconditioned* sharpness (Cohen et al.
2022, "Adaptive gradient methods at the edge of stability").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sympy

from igr.backward_error.algebra.taylor import Z, taylor_coefficients
from igr.backward_error.methods.linear import LinearMethod
from igr.backward_error.terms.algebra import G

if TYPE_CHECKING:
    from igr.backward_error.terms.elementwise import Channel, ElementwiseMethod, Kept

# A sum of factors, in what stands still, times transfer functions.
_Answer = list[tuple[sympy.Expr, sympy.Expr]]


@dataclass(frozen=True)
class GradientResponse:
    """An elementwise method, near a point, as a preconditioned linear method.

    Attributes:
      method: the linear method that is applied to the preconditioned gradient.
      preconditioner: dPsi/da, elementwise, in the channels, kept states, g, theta and t.
      steady: the value of each channel for a constant gradient, see `steady_channels`.
      rates: pairs (symbol, r): the symbol stands for r/h in the preconditioner.
    """

    method: LinearMethod
    preconditioner: sympy.Expr
    steady: tuple[tuple[sympy.Symbol, sympy.Expr], ...]
    rates: tuple[tuple[sympy.Symbol, sympy.Expr], ...] = ()

    def stability_limit(self) -> float:
        """The largest h times preconditioned curvature at which the method does not diverge."""
        return self.method.response().stability_limit()

    def convergence_radius(self) -> float:
        """The h times preconditioned curvature below which the expansion in h converges."""
        return self.method.response().convergence_radius()


def gradient_response(method: ElementwiseMethod) -> GradientResponse | None:
    """The preconditioned linear method that an elementwise one is near a point, or None.

    None where the rule reads neither the gradient nor a linear average of it, or reads several of
    these with derivatives whose ratio differs from coordinate to coordinate.

    >>> from igr.backward_error import methods
    >>> response = gradient_response(methods.adam(0.9, keep=(), eps=0))
    >>> response.preconditioner
    1/sqrt(nu)
    >>> round(response.stability_limit(), 6)  # 2 (1 + b1)/(1 - b1)
    38.0
    """
    carried = _carried(method)
    read = [
        (sympy.diff(method.rule, symbol) * factor, transfer)
        for symbol, parts in carried.items()
        if symbol in method.rule.free_symbols
        for factor, transfer in parts
    ]
    read = [(factor, transfer) for factor, transfer in read if factor != 0]
    if not read:
        return None
    first, _ = read[0]
    shares = [sympy.simplify(factor / first) for factor, _ in read]
    if not all(share.is_number and share.is_finite for share in shares):
        return None
    transfer = sympy.Add(*(share * w for share, (_, w) in zip(shares, read, strict=True)))
    linear = LinearMethod(f"{method.name}, preconditioned", transfer)
    return GradientResponse(linear, first, steady_channels(method), method.rates)


def _carried(method: ElementwiseMethod) -> dict[sympy.Symbol, _Answer]:
    """The symbols that change linearly with the gradient, with their (factor, transfer) pairs.

    These are the gradient itself and any channel or kept average of an expression that is linear
    in them. An average of a square is held fixed, and so is a sum over the whole run. Symbols that
    depend on one another in a circle are left out.
    """
    gradient: _Answer = [(sympy.Integer(1), sympy.Integer(1))]
    carried = {G: gradient}
    unknown: set[sympy.Symbol] = set()
    for name, part in method.sequence:
        unknown |= part.of.free_symbols - carried.keys()
        slopes = {s: sympy.diff(part.of, s) for s in carried if s in part.of.free_symbols}
        memory = _memory(part)
        if memory is None or any(x.free_symbols & carried.keys() for x in slopes.values()):
            continue
        answers = [(x * f, memory * w) for s, x in slopes.items() for f, w in carried[s]]
        if not answers:
            continue
        carried[name] = answers
        if name in dict(method.states):
            carried[method.before(name)] = [(f, sympy.exp(-Z) * w) for f, w in answers]
    if unknown & carried.keys():
        return {}
    return {**{s: x for s, x in carried.items() if s != G}, G: gradient}


def _memory(part: Channel | Kept) -> sympy.Expr | None:
    """The transfer function of a channel or kept average; None for a sum over the whole run."""
    transfer = getattr(part, "transfer", None)
    if transfer is not None:
        return transfer
    rate = getattr(part, "rate", None)
    return None if rate is None else rate / (1 - (1 - rate) * sympy.exp(-Z))


def steady_channels(method: ElementwiseMethod) -> tuple[tuple[sympy.Symbol, sympy.Expr], ...]:
    """The value W(0) phi of each channel for a constant gradient, as (symbol, value) pairs.

    They stand in an order in which each reads only those before it.
    """
    channels = dict(method.channels)
    return tuple(
        (a, taylor_coefficients(channels[a].transfer, 1)[0] * channels[a].of)
        for a, _ in method.sequence
        if a in channels
    )
