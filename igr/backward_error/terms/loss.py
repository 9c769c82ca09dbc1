"""The modified loss of an adaptive method, in the metric of its preconditioner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy

from igr.backward_error.algebra.losses import check_loss
from igr.backward_error.algebra.taylor import STEP, exact
from igr.backward_error.terms import printing
from igr.backward_error.terms.algebra import THETA, G, T
from igr.backward_error.terms.certificate import SQUARE, Descent, descent
from igr.backward_error.trees.loss import NotAGradientError
from igr.shown import cut


@dataclass(frozen=True, repr=False)
class PreconditionedLoss:
    """The loss on which a method descends in the metric of its preconditioner P.

        theta' = -P grad[E + h sum_i psi(g_i)] - C theta + O(h^(order + 1)),

    psi, P and C may depend on kept states and the time, which are fixed where the gradient is
    taken.

    Attributes:
      name: the method.
      order: the highest power of h kept.
      parts: psi, P and C by the powers of h, see `certificate.Descent`.
      states: the symbols of the kept states.
      rates: symbol -> r: the symbol stands for r/h.
    """

    name: str
    order: int
    parts: Descent
    states: tuple[sympy.Symbol, ...]
    rates: Mapping[sympy.Symbol, sympy.Expr]

    @property
    def kept(self) -> tuple[str, ...]:
        """The names of the kept states it may depend on, besides params."""
        return tuple(map(str, self.states))

    @property
    def penalty(self) -> sympy.Expr:
        """The summand h psi of the loss, an expression in g, kept states, theta and the time."""
        return _series(self.parts.penalty)

    @property
    def of_length(self) -> sympy.Expr:
        """The loss's term in |g|, an expression in `certificate.SQUARE` = |g|^2."""
        return _series(self.parts.of_length)

    @property
    def preconditioner(self) -> sympy.Expr:
        """The elementwise preconditioner P, an expression in h, g, kept states and the time."""
        return _series(self.parts.preconditioner)

    @property
    def decay(self) -> sympy.Expr:
        """The elementwise coefficient C of the decoupled weight decay -C theta."""
        return _series(self.parts.decay)

    @property
    def loss(self) -> sympy.Expr:
        """E + h sum(psi) as an expression; `sum` is a function symbol, over coordinates."""
        total = sympy.Symbol("E")
        if self.penalty != 0:
            total += STEP * sympy.Function("sum")(self.penalty / STEP)
        return total + self.of_length.xreplace({SQUARE: sympy.Symbol("|g|", positive=True) ** 2})

    @property
    def parameters(self) -> tuple[sympy.Symbol, ...]:
        """The free symbols of the loss, sorted by name."""
        free = set().union(
            *(e.free_symbols for e in (self.penalty, self.of_length)),
            *(rate.free_symbols for rate in self.rates.values()),
        )
        return tuple(sorted(free - {G, THETA, T, STEP, SQUARE, *self.states, *self.rates}, key=str))

    def on(self, loss: sympy.Expr, params: Sequence[sympy.Symbol], h: Any) -> sympy.Expr:
        """The modified loss in closed form on a sympy loss; a kept state y appears as y_param.

        Args:
          loss: E, an expression in `params`.
          params: the parameters, symbols.
          h: the step, a symbol or number.

        Raises:
          TypeError: if `loss` or `h` is no number or expression, or `params` are no symbols.
          ValueError: if a symbol stands twice in `params`.

        >>> from igr.backward_error import methods, modified_equation
        >>> x, h, b, e = sympy.symbols("x h b1 eps")
        >>> adam = methods.adam(b, 0, e, keep=("nu",))
        >>> modified = modified_equation(adam, 1).modified_loss()
        >>> print(sympy.factor(modified.on(x**2, (x,), h) - x**2))
        -h*x**2*(b1 + 1)/((b1 - 1)*(eps + sqrt(nu_x)))
        """
        loss, params = check_loss(loss, params)
        h = exact(h, "h")
        rates = {symbol: rate / h for symbol, rate in self.rates.items()}
        slopes = [sympy.diff(loss, p) for p in params]
        total = loss
        for p, slope in zip(params, slopes, strict=True):
            at = {THETA: p, G: slope, STEP: h}
            at |= {y: sympy.Symbol(f"{y}_{p}") for y in self.states}
            total += self.penalty.xreplace({**rates, **at})
        square = sympy.Add(*(slope**2 for slope in slopes))
        return total + self.of_length.xreplace({SQUARE: square, STEP: h})

    def latex(self) -> str:
        """The loss, the preconditioner and the weight decay as LaTeX."""
        return printing.preconditioned_loss(self, latex=True)

    def __str__(self) -> str:
        return printing.preconditioned_loss(self, latex=False)

    def __repr__(self) -> str:
        return f"<modified loss of {self.name}, order {self.order}: {cut(str(self), 400)}>"

    def __hash__(self) -> int:
        return hash((self.name, self.order, self.parts))

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.latex()}$"


def preconditioned_loss(eq: Any, order: int) -> PreconditionedLoss:
    """The modified loss of an equation, on which its field descends.

    Args:
      eq: an `ElementwiseEquation`.
      order: the highest power of h kept.

    Raises:
      NotAGradientError: if there is none; the message names the first term that is no descent.
      UnansweredError: for an order above 1.
    """
    parts = descent(eq, order)
    if parts.preconditioner[0] == 0:
        raise NotAGradientError(
            f"{eq.name} follows no modified loss: its field at h^0, "
            f"{printing.term(eq, eq.field[0])}, is no factor of the gradient g",
            0,
            (),
        )
    for k, terms in enumerate(parts.obstruction):
        if terms:
            shown = printing.term(eq, terms[0])
            metric = printing.term(eq, parts.preconditioner[0])
            raise NotAGradientError(
                f"{eq.name} follows no modified loss at h^{k}, in the metric of P = {metric}: the "
                f"term {shown} is not -P times a gradient, nor a factor of g or θ."
                + (f" A loss exists up to h^{k - 1}: modified_loss({k - 1})." if k else "")
                + " The whole field is in the equation, split by gradient_part() and obstruction()",
                k,
                (),
            )
    return PreconditionedLoss(eq.name, order, parts, tuple(eq.states), dict(eq.rates))


def _series(coefficients: tuple[sympy.Expr, ...]) -> sympy.Expr:
    return sympy.Add(*(c * STEP**k for k, c in enumerate(coefficients)))
