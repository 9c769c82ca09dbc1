"""Solves for the modified field of a rule in the term algebra, one power of h at a time.

The field satisfies

    F   = -B(h D) Psi(W_1(h D) phi_1, .., W_r(h D) phi_r, e^(h D) y, theta),
    F_y =  B(h D) kappa (phi - y),                       B(z) = z/(e^z - 1)

with D the derivative along both, F_y = B(h D) phi for a state that grows by h phi in a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import factorial
from typing import TYPE_CHECKING

import sympy

from igr.backward_error.algebra.taylor import Z, taylor_coefficients
from igr.backward_error.terms.algebra import Algebra, T
from igr.backward_error.terms.equation import ElementwiseEquation

if TYPE_CHECKING:
    from igr.backward_error.methods.sharpness_aware import SharpnessAware
    from igr.backward_error.terms.elementwise import ElementwiseMethod

Coefficients = list[sympy.Expr]  # of h^0, h^1, ..
_BERNOULLI = Z / (sympy.exp(Z) - 1)


def elementwise_equation(method: ElementwiseMethod, order: int) -> ElementwiseEquation:
    """The modified equation, up to h^order, of a method with channels and an elementwise rule."""
    solver = _Solver(tuple(y for y, _ in method.states))
    terms = order + 1
    bernoulli = taylor_coefficients(_BERNOULLI, terms)
    kappas = {
        y: sympy.Symbol(f"kappa_{y}", positive=True)
        for y, state in method.states
        if state.rate is not None
    }
    rates = {kappas[y]: state.rate for y, state in method.states if state.rate is not None}
    rates |= dict(method.rates)
    transfers = {a: taylor_coefficients(c.transfer, terms) for a, c in method.channels}
    exponential = [sympy.Rational(1, factorial(j)) for j in range(terms)]
    for k in range(terms):

        def constant(x: sympy.Expr, k: int = k) -> Coefficients:
            return [x] + [sympy.Integer(0)] * k

        read = {T: solver.operator(exponential, constant(T))}
        read |= {method.before(y): constant(y) for y, _ in method.states}
        slow = {}
        for name, part in method.sequence:
            phi = _compose(part.of, read, k)
            if name in transfers:
                read[name] = solver.operator(transfers[name], phi)
                continue
            read[name] = solver.operator(exponential, constant(name))
            if name in kappas:
                pairs = zip(phi, constant(name), strict=True)
                phi = [kappas[name] * (p - q) for p, q in pairs]
            slow[name] = solver.operator(bernoulli, phi)[k]
        psi = _compose(method.rule, read, k)
        solver.field.append(solver.tidy(-solver.operator(bernoulli, psi)[k]))
        for y, expression in slow.items():
            solver.states[y].append(solver.tidy(expression))
    return solver.equation(method.name, order, rates)


def sharpness_aware_equation(method: SharpnessAware, order: int) -> ElementwiseEquation:
    """The modified equation, up to h^order, of a rule that is a power series in h."""
    solver = _Solver(())
    bernoulli = taylor_coefficients(_BERNOULLI, order + 1)
    rule = method.rule(solver.algebra, order)
    for k in range(order + 1):
        solver.field.append(solver.tidy(-solver.operator(bernoulli, rule[: k + 1])[k]))
    return solver.equation(method.name, order, {})


class _Solver:
    """The coefficients of the field known so far, and the derivative h D along it."""

    def __init__(self, kept: tuple[sympy.Symbol, ...]):
        self.algebra = Algebra(kept)
        self.tidy = self.algebra.tidy
        self.field: Coefficients = []
        self.states: dict[sympy.Symbol, Coefficients] = {y: [] for y in kept}

    def advance(self, series: Coefficients) -> Coefficients:
        """The series h D X of a series X: its h^k coefficient sums D_i X_l over i + l = k - 1."""
        result = [sympy.Integer(0)]
        for k in range(1, len(series)):
            parts = (
                self.algebra.derivative(
                    series[k - 1 - i],
                    self.field[i],
                    {y: s[i] for y, s in self.states.items()},
                    first=i == 0,
                )
                for i in range(k)
            )
            result.append(sum(parts, sympy.Integer(0)))
        return result

    def operator(self, coefficients: Coefficients, series: Coefficients) -> Coefficients:
        """The series sum_j c_j (h D)^j X, for coefficients c_j and a series X."""
        total = [coefficients[0] * x for x in series]
        power = series
        for c in coefficients[1 : len(series)]:
            power = self.advance(power)
            total = [t + c * x for t, x in zip(total, power, strict=True)]
        return total

    def equation(
        self, name: str, order: int, rates: Mapping[sympy.Symbol, sympy.Expr]
    ) -> ElementwiseEquation:
        return ElementwiseEquation(
            name,
            order,
            tuple(self.field),
            {y: tuple(s) for y, s in self.states.items()},
            dict(self.algebra.contractions),
            rates,
            dict(self.algebra.products),
        )


def _compose(
    rule: sympy.Expr, read: Mapping[sympy.Symbol, Coefficients], order: int
) -> Coefficients:
    """The Taylor coefficients in h of the rule, where the quantities it reads are series in h."""
    present = [a for a in read if a in rule.free_symbols]
    if not present:
        return [rule] + [sympy.Integer(0)] * order
    h = sympy.Dummy("h")
    held: dict[sympy.Symbol, sympy.Expr] = {}
    moving = {}
    for a in present:
        dummies = [sympy.Dummy() for _ in read[a]]
        held.update(zip(dummies, read[a], strict=True))
        moving[a] = sum(d * h**k for k, d in enumerate(dummies))
    result, current = [], rule.xreplace(moving)
    for k in range(order + 1):
        result.append(current.xreplace({h: sympy.Integer(0)}).xreplace(held) / factorial(k))
        current = sympy.diff(current, h)
    return result
