"""The modified equation of a method with an elementwise rule, in the term algebra.

The modified field solves, order by order in h,

    F   = -B(h D) Psi(W_1(h D) phi_1, .., W_r(h D) phi_r, e^(h D) y, theta),
    F_y =  B(h D) kappa (phi - y),                       B(z) = z/(e^z - 1)

with D the derivative along both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from math import factorial
from typing import Any, NoReturn

import sympy

from igr.backward_error.algebra.naming import named, numbers_for
from igr.backward_error.algebra.taylor import Z, taylor_coefficients
from igr.backward_error.methods.sharpness_aware import SharpnessAware
from igr.backward_error.terms import printing as term_printing
from igr.backward_error.terms.algebra import THETA, Algebra, Contraction, G, T
from igr.backward_error.terms.elementwise import ElementwiseMethod
from igr.backward_error.trees.loss import NotAGradientError

Coefficients = list[sympy.Expr]  # of h^0, h^1, ..


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
      products: the pairs of vectors that the symbols of inner products stand for.
    """

    name: str
    order: int
    field: tuple[sympy.Expr, ...]
    kept: Mapping[sympy.Symbol, tuple[sympy.Expr, ...]]
    contractions: Mapping[sympy.Symbol, Contraction]
    rates: Mapping[sympy.Symbol, sympy.Expr]
    products: Mapping[sympy.Symbol, tuple[sympy.Expr, sympy.Expr]] = dataclasses.field(
        default_factory=dict
    )

    @property
    def parameters(self) -> tuple[sympy.Symbol, ...]:
        """The symbols left open."""
        own = {THETA, G, T, *self.kept, *self.contractions, *self.rates, *self.products}
        free: set[Any] = set()
        for expression in self._expressions():
            free |= expression.free_symbols
        return tuple(sorted(free - own, key=str))

    def subs(self, values: Mapping[Any, Any]) -> ElementwiseEquation:
        """The equation with numbers, or other expressions, for the method's symbols.

        Args:
          values: by symbol, or by its name. Floats are read as the decimal that is written.

        Raises:
          ValueError: for a symbol that the equation does not have, or a value at which it has a
            pole.

        >>> from igr.backward_error import methods, modified_equation
        >>> eq = modified_equation(methods.signsgd(sympy.Symbol("s")), 0)
        >>> print(eq.subs({"s": 0.25}))
        θ' = -g/sqrt(g² + 1/4) + O(h)
        """
        found = numbers_for(self.parameters, values)

        def put(expression: sympy.Expr) -> sympy.Expr:
            result = expression.subs(found)
            if result.has(sympy.zoo, sympy.nan):
                raise ValueError(f"the coefficients are not finite at {dict(values)}")
            return result

        return ElementwiseEquation(
            named(self.name).subs(found),
            self.order,
            tuple(map(put, self.field)),
            {y: tuple(map(put, part)) for y, part in self.kept.items()},
            {s: Contraction(tuple(map(put, c.vectors))) for s, c in self.contractions.items()},
            {kappa: put(rate) for kappa, rate in self.rates.items()},
            {s: (put(a), put(b)) for s, (a, b) in self.products.items()},
        )

    def truncate(self, order: int) -> ElementwiseEquation:
        """The same equation with fewer powers of h."""
        if not 0 <= order <= self.order:
            raise ValueError(f"order is from 0 to {self.order}, that of the equation; got {order}")
        kept = {y: part[: order + 1] for y, part in self.kept.items()}
        return ElementwiseEquation(
            self.name,
            order,
            self.field[: order + 1],
            kept,
            self.contractions,
            self.rates,
            self.products,
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
        numbers: dict[sympy.Symbol, sympy.Expr] = {}

        def value(expression: sympy.Expr) -> list[sympy.Expr]:
            for atom in expression.free_symbols:
                if atom in self.contractions and atom not in vectors:
                    vectors[atom] = contraction(self.contractions[atom])
                elif atom in self.products and atom not in numbers:
                    a, b = map(value, self.products[atom])
                    numbers[atom] = sympy.Add(*(x * y for x, y in zip(a, b, strict=True)))
            present = [a for a in expression.free_symbols if a in vectors]
            scalars = {s: n for s, n in numbers.items() if s in expression.free_symbols}
            return [
                expression.xreplace({**scalars, **{a: vectors[a][i] for a in present}})
                for i in range(len(params))
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

    def modified_loss(self, order: int | None = None) -> NoReturn:
        """Raises: no certificate is made of equations in the term algebra.

        Raises:
          NotAGradientError: always. An elementwise rule that is not linear bends the gradient in
            each coordinate on its own, and what comes out is a gradient for no loss in general.
        """
        raise NotAGradientError(
            f"no modified loss is certified for {self.name}: certificates are made of equations "
            "over trees, and this is one of an elementwise rule or of the length of g. Its field "
            "is compiled by igr.vector_field",
            0,
            (),
        )

    def latex(self) -> str:
        """The equation as LaTeX, in g, H, nabla^k E[., .] and the method's own symbols."""
        return term_printing.equation(self, latex=True)

    def __str__(self) -> str:
        return term_printing.equation(self, latex=False)

    def __hash__(self) -> int:
        return hash((self.name, self.order, self.field))

    def __repr__(self) -> str:
        return f"<modified equation of {self.name}, order {self.order}>"

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.latex()}$"

    def _expressions(self) -> list[sympy.Expr]:
        return [
            *self.field,
            *(e for part in self.kept.values() for e in part),
            *self.rates.values(),
            *(v for c in self.contractions.values() for v in c.vectors),
            *(v for pair in self.products.values() for v in pair),
        ]


def elementwise_equation(
    method: ElementwiseMethod | SharpnessAware, order: int
) -> ElementwiseEquation:
    """Solves the master equation for a method whose rule lives in the term algebra."""
    states = method.kept if isinstance(method, ElementwiseMethod) else ()
    solver = _Solver(tuple(y for y, _ in states))
    terms = order + 1
    bernoulli = taylor_coefficients(Z / (sympy.exp(Z) - 1), terms)
    if isinstance(method, SharpnessAware):
        rule = method.rule(solver.algebra, order)
        for k in range(terms):
            solver.field.append(solver.tidy(-solver.operator(bernoulli, rule[: k + 1])[k]))
        return solver.equation(method.name, order, {})

    kappas = [sympy.Symbol(f"kappa_{y}", positive=True) for y, _ in states]
    rates = dict(zip(kappas, (state.rate for _, state in states), strict=True))
    rates |= dict(method.rates)
    transfers = {a: taylor_coefficients(c.transfer, terms) for a, c in method.channels}
    exponential = [sympy.Rational(1, factorial(j)) for j in range(terms)]
    for k in range(terms):

        def constant(x: sympy.Expr, k: int = k) -> Coefficients:
            return [x] + [sympy.Integer(0)] * k

        read = {T: solver.operator(exponential, constant(T))}
        for a, c in method.channels:
            read[a] = solver.operator(transfers[a], _compose(c.of, read, k))
        slow = {}
        for (y, state), kappa in zip(states, kappas, strict=True):
            phi = _compose(state.of, read, k)
            moved = [kappa * (p - q) for p, q in zip(phi, constant(y), strict=True)]
            slow[y] = solver.operator(bernoulli, moved)[k]
            read[y] = solver.operator(exponential, constant(y))
        psi = _compose(method.rule, read, k)
        solver.field.append(solver.tidy(-solver.operator(bernoulli, psi)[k]))
        for y, expression in slow.items():
            solver.states[y].append(solver.tidy(expression))
    return solver.equation(method.name, order, rates)


class _Solver:
    """The field as far as it is known, and h D along it."""

    def __init__(self, kept: tuple[sympy.Symbol, ...]):
        self.algebra = Algebra(kept)
        self.tidy = self.algebra.tidy
        self.field: Coefficients = []
        self.states: dict[sympy.Symbol, Coefficients] = {y: [] for y in kept}

    def advance(self, series: Coefficients) -> Coefficients:
        """h D of a series: the coefficient of h^k sums D_i X_l over i + l = k - 1."""
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
        """sum_j c_j (h D)^j of a series."""
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
    """Taylor coefficients in h of the rule on channels that are series in h."""
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
