"""The modified equation of a method with an elementwise rule, as formulas of the term algebra."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy

from igr.backward_error.algebra.losses import check_loss
from igr.backward_error.algebra.naming import named, numbers_for
from igr.backward_error.algebra.orders import check_order
from igr.backward_error.algebra.taylor import exact
from igr.backward_error.terms import printing as term_printing
from igr.backward_error.terms.algebra import THETA, Contraction, G, T
from igr.backward_error.terms.certificate import descent
from igr.backward_error.terms.loss import PreconditionedLoss, preconditioned_loss
from igr.backward_error.trees.loss import NotAGradientError
from igr.checks import Count


@dataclass(frozen=True, repr=False)
class ElementwiseEquation:
    """The modified equation of an optimizer with an elementwise rule, as sympy formulas.

    theta' = sum_k h^k F_k, and y' = sum_k h^k F_{y,k} for each kept state.

    Attributes:
      name: the method.
      order: the highest power of h kept.
      field: F_0, .., F_order, expressions of the term algebra.
      states: F_{y,0}, .. for each kept state. Rates appear as rate/h: see `rates`.
      contractions: what the symbols of contractions stand for.
      rates: the symbol of kappa for each kept state -> kappa h, a number.
      products: the pairs of vectors that the symbols of inner products stand for.
    """

    name: str
    order: int
    field: tuple[sympy.Expr, ...]
    states: Mapping[sympy.Symbol, tuple[sympy.Expr, ...]]
    contractions: Mapping[sympy.Symbol, Contraction]
    rates: Mapping[sympy.Symbol, sympy.Expr]
    products: Mapping[sympy.Symbol, tuple[sympy.Expr, sympy.Expr]] = dataclasses.field(
        default_factory=dict
    )

    @property
    def kept(self) -> tuple[str, ...]:
        """The names of the optimizer states that are variables of the flow."""
        return tuple(str(y) for y in self.states)

    @property
    def parameters(self) -> tuple[sympy.Symbol, ...]:
        """The free symbols, sorted by name."""
        own = {THETA, G, T, *self.states, *self.contractions, *self.rates, *self.products}
        free: set[Any] = set()
        for expression in self._expressions():
            free |= expression.free_symbols
        return tuple(sorted(free - own, key=str))

    def subs(self, values: Mapping[Any, Any]) -> ElementwiseEquation:
        """The equation with numbers, or other expressions, in place of its symbols.

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
            {y: tuple(map(put, part)) for y, part in self.states.items()},
            {s: Contraction(tuple(map(put, c.vectors))) for s, c in self.contractions.items()},
            {kappa: put(rate) for kappa, rate in self.rates.items()},
            {s: (put(a), put(b)) for s, (a, b) in self.products.items()},
        )

    def truncate(self, order: Count) -> ElementwiseEquation:
        """The same equation with the terms up to h^order alone."""
        order = check_order(order, self.order)
        states = {y: part[: order + 1] for y, part in self.states.items()}
        return ElementwiseEquation(
            self.name,
            order,
            self.field[: order + 1],
            states,
            self.contractions,
            self.rates,
            self.products,
        )

    def on(self, loss: sympy.Expr, params: Sequence[sympy.Symbol], h: Any) -> sympy.Matrix:
        """The field of theta in closed form on a sympy loss; a kept state y appears as y_param.

        Args:
          loss: E, an expression in `params`.
          params: the m parameters.
          h: the step, a symbol or number.

        Returns:
          The field of theta, an m x 1 Matrix.

        Raises:
          TypeError: if `loss` or `h` is no number or expression, or `params` are no symbols.
          ValueError: if a symbol stands twice in `params`.

        >>> from igr.backward_error import methods, modified_equation
        >>> x, h = sympy.symbols("x h")
        >>> modified_equation(methods.signsgd(1), 0).on(x**2, (x,), h)
        Matrix([[-2*x/sqrt(4*x**2 + 1)]])
        """
        loss, params = check_loss(loss, params)
        h = exact(h, "h")
        vectors: dict[sympy.Symbol, list[sympy.Expr]] = {
            THETA: list(params),
            G: [sympy.diff(loss, p) for p in params],
            **{y: [sympy.Symbol(f"{y}_{p}") for p in params] for y in self.states},
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

        rates = {kappa: rate / h for kappa, rate in self.rates.items()}
        total = sympy.zeros(len(params), 1)
        for k, expression in enumerate(self.field):
            total += h**k * sympy.Matrix(value(expression)).xreplace(rates)
        return total

    def is_gradient(self, order: Count | None = None) -> bool:
        """Whether the field is preconditioned descent on some loss, for every E.

        Args:
          order: up to this power of h; `self.order` if not given.

        Raises:
          UnansweredError: for an order above 1.

        >>> from igr.backward_error import methods, modified_equation
        >>> modified_equation(methods.adam(), 1).is_gradient()
        True
        >>> eliminated = modified_equation(methods.adam(keep=()), 1)
        >>> eliminated.is_gradient(0), eliminated.is_gradient(1)
        (True, False)
        """
        try:
            self.modified_loss(order)
        except NotAGradientError:
            return False
        return True

    def modified_loss(self, order: Count | None = None) -> PreconditionedLoss:
        """The modified loss, on which the field descends in its preconditioner's metric.

        Its gradient is taken at fixed kept states and time; decoupled weight decay is no part of
        it.

        Args:
          order: up to this power of h; `self.order` if not given.

        Raises:
          NotAGradientError: if there is none; the message names the first term that is no descent.
          UnansweredError: for an order above 1.

        >>> from igr.backward_error import methods, modified_equation
        >>> rule = methods.rmsprop(0.9, sympy.Symbol("epsilon"), keep=("nu",))
        >>> print(modified_equation(rule, 1).modified_loss())
        E + h/4 Σ g²/sqrt(ε + ν) + O(h²), in the metric of P = 1/sqrt(ε + ν) + O(h)
        """
        return preconditioned_loss(
            self, check_order(self.order if order is None else order, self.order)
        )

    def gradient_part(self) -> ElementwiseEquation:
        """The equation without the terms of theta' that are not descent on a loss.

        Raises:
          UnansweredError: for an equation of an order above 1.

        Weight decay and the equations of kept states stay in it.
        """
        rest = self._obstructions()
        field = tuple(f - r for f, r in zip(self.field, rest, strict=True))
        return self._part(", gradient part", field, self.states)

    def obstruction(self) -> ElementwiseEquation:
        """The rest of the field: the equation less its `gradient_part`.

        Raises:
          UnansweredError: for an equation of an order above 1.

        >>> from igr.backward_error import methods, modified_equation
        >>> print(modified_equation(methods.adam(), 1).obstruction().field)
        (0, 0)
        """
        still = {y: (sympy.Integer(0),) * len(part) for y, part in self.states.items()}
        return self._part(", obstruction", self._obstructions(), still)

    def _obstructions(self) -> tuple[sympy.Expr, ...]:
        return tuple(sympy.Add(*terms) for terms in descent(self, self.order).obstruction)

    def _part(
        self,
        which: str,
        field: tuple[sympy.Expr, ...],
        states: Mapping[sympy.Symbol, tuple[sympy.Expr, ...]],
    ) -> ElementwiseEquation:
        name = named(self.name).followed_by(which)
        return dataclasses.replace(self, name=name, field=field, states=states)

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
            *(e for part in self.states.values() for e in part),
            *self.rates.values(),
            *(v for c in self.contractions.values() for v in c.vectors),
            *(v for pair in self.products.values() for v in pair),
        ]
