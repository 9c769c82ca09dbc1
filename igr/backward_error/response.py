"""How an elementwise rule answers a small change of the gradient, all slow quantities held.

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
    from igr.backward_error.terms.elementwise import ElementwiseMethod


@dataclass(frozen=True)
class GradientResponse:
    """An elementwise method as a preconditioned linear one.

    Attributes:
      method: what is done with the preconditioned gradient, as a linear method.
      preconditioner: dPsi/da, elementwise, in the channels, kept states, g, theta and t.
      steady: what each channel reads when the gradient stands still, see `steady_channels`.
      rates: symbols of the preconditioner that stand for a number over h, and that number.
    """

    method: LinearMethod
    preconditioner: sympy.Expr
    steady: tuple[tuple[sympy.Symbol, sympy.Expr], ...]
    rates: tuple[tuple[sympy.Symbol, sympy.Expr], ...] = ()

    def stability_limit(self) -> float:
        """The largest h times preconditioned curvature at which the method does not diverge."""
        return self.method.response().stability_limit()

    def convergence_radius(self) -> float:
        """The h times preconditioned curvature up to which the expansion in h converges."""
        return self.method.response().convergence_radius()


def gradient_response(method: ElementwiseMethod) -> GradientResponse | None:
    """The linear method that an elementwise one is near a point, or None where there is none.

    None where the rule reads the gradient through several memories whose weights differ from
    coordinate to coordinate, or not at all.

    >>> from igr.backward_error import methods
    >>> response = gradient_response(methods.adam(0.9, keep=(), eps=0))
    >>> response.preconditioner
    1/sqrt(nu)
    >>> round(response.stability_limit(), 6)  # 2 (1 + b1)/(1 - b1)
    38.0
    """
    read = [(a, c.transfer) for a, c in method.channels if c.of == G]
    # A kept average of the gradient is a memory like another: y <- y + r (g - y).
    read += [
        (y, k.rate / (1 - (1 - k.rate) * sympy.exp(-Z)))
        for y, k in method.states
        if k.of == G and k.rate is not None
    ]
    if method.rule.has(G):
        read.append((G, sympy.Integer(1)))
    if not read:
        return None
    responses = [sympy.diff(method.rule, a) for a, _ in read]
    shares = [sympy.simplify(r / responses[0]) for r in responses]
    if not all(share.is_number for share in shares):
        return None
    transfer = sympy.Add(*(share * w for share, (_, w) in zip(shares, read, strict=True)))
    linear = LinearMethod(f"{method.name}, preconditioned", transfer)
    return GradientResponse(linear, responses[0], steady_channels(method), method.rates)


def steady_channels(method: ElementwiseMethod) -> tuple[tuple[sympy.Symbol, sympy.Expr], ...]:
    """What each channel reads when the gradient stands still: W(0) phi, in the order they read."""
    channels = dict(method.channels)
    return tuple(
        (a, taylor_coefficients(channels[a].transfer, 1)[0] * channels[a].of)
        for a, _ in method.sequence
        if a in channels
    )
