"""The modified equation of a method, and the certificate of its loss.

An optimizer with a finite step h follows theta' = F(theta) with

    F = sum_t h^(|t|-1) c(t) F(t),

t over rooted trees, F(t) the elementary differential of t over f = -grad E. The field is the
gradient of a loss for every E exactly when b(t) = c(t) sigma(t) is the same for all rootings of
each free tree (`loss`): for gradient descent up to h^1. At h^2 a modified equation exists, a
modified loss does not.

Under decoupled weight decay the coefficients are polynomials in h besides: c h is a number that
the method itself multiplies with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sympy

from igr.backward_error import trees
from igr.backward_error.algebra.naming import named, numbers_for
from igr.backward_error.algebra.orders import check_order
from igr.backward_error.algebra.taylor import STEP, exact, fraction_field
from igr.backward_error.trees import printing
from igr.backward_error.trees.closed_form import Differentials
from igr.backward_error.trees.gradient import PLAIN, Gradient
from igr.backward_error.trees.loss import ModifiedLoss, NotAGradientError, pickled, restored
from igr.backward_error.trees.rooted import Tree
from igr.backward_error.trees.series import by_power, step_powers


@dataclass(frozen=True, repr=False)
class ModifiedEquation:
    """theta' = sum_t h^(|t|-1) c(t) F(t), truncated after `order` powers of h.

    Attributes:
      name: the method, or the part of a method's equation.
      order: the highest power of h kept.
      weights: b(t) = c(t) sigma(t) for the trees (as integers of `trees`) where it is not zero.
      domain: the sympy field the weights are elements of.
      gradient: what g is: of E, or under weight decay c of E + c |theta|^2/2, or taken uphill.
    """

    name: str
    order: int
    weights: Mapping[int, Any]
    domain: Any
    gradient: Gradient = PLAIN

    # Coefficients

    def coefficient(self, tree: Tree) -> sympy.Expr:
        """c(t): the exact coefficient of h^(|t|-1) F(t), F(t) over f = -grad E.

        Under decoupled weight decay it is a polynomial in the symbol `h`.

        Args:
          tree: nested tuple of children; `()` is one vertex. Children may stand in any order.

        Raises:
          ValueError: if the tree has more vertices than the equation keeps.
          TypeError: if it is not a nested tuple.

        >>> from igr.backward_error import methods, modified_equation
        >>> modified_equation(methods.gradient_descent(), 2).coefficient(((), ()))
        1/12
        """
        t = trees.intern(tree)
        if trees.size(t) > self.order + 1:
            raise ValueError(
                f"the tree {tree} belongs to h^{trees.size(t) - 1}, beyond the order "
                f"{self.order} of this equation: derive it to a higher order"
            )
        return self._expression(self.weights.get(t, self.domain.zero)) / trees.sigma(t)

    @cached_property
    def coefficients(self) -> dict[Tree, sympy.Expr]:
        """Every tree with a coefficient c(t) that is not zero, by increasing order."""
        return {
            trees.as_tuple(t): self._expression(b) / trees.sigma(t) for t, b in self.weights.items()
        }

    @property
    def parameters(self) -> tuple[sympy.Symbol, ...]:
        """The symbols left open in the coefficients."""
        free = set(self.gradient.free_symbols)
        for b in self.weights.values():
            free |= self._expression(b).free_symbols
        return tuple(sorted(free - {STEP}, key=str))

    def subs(self, values: Mapping[Any, Any]) -> ModifiedEquation:
        """The equation with numbers, or other expressions, for the method's symbols.

        Args:
          values: by symbol, or by its name. Floats are read as the decimal that is written.

        Raises:
          ValueError: for a symbol that the equation does not have, or a value at which it has a
            pole.

        >>> from igr.backward_error import methods, modified_equation
        >>> eq = modified_equation(methods.heavy_ball(sympy.Symbol("beta")), order=1)
        >>> print(eq.subs({"beta": 0.9}))
        θ' = -10 g - 950 h H g + O(h²)
        """
        exact_values = numbers_for(self.parameters, values)
        expressions = [
            sympy.cancel(self._expression(b).subs(exact_values)) for b in self.weights.values()
        ]
        if any(e.has(sympy.zoo, sympy.nan) for e in expressions):
            raise ValueError(f"the coefficients are not finite at {dict(values)}")
        domain, elements = fraction_field(expressions)
        weights = {t: b for t, b in zip(self.weights, elements, strict=True) if b}
        name, gradient = named(self.name).subs(exact_values), self.gradient.subs(exact_values)
        return ModifiedEquation(name, self.order, weights, domain, gradient)

    def truncate(self, order: int) -> ModifiedEquation:
        """The same equation with fewer powers of h."""
        order = check_order(order, self.order)
        kept = _cut(self.weights, self.domain, order)
        return ModifiedEquation(self.name, order, kept, self.domain, self.gradient)

    # Certificate

    def is_gradient(self, order: int | None = None) -> bool:
        """Whether the field, up to h^order, is a gradient for every loss.

        Args:
          order: up to this power of h; `self.order` if not given.
        """
        return self._first_obstruction(order) is None and not self.gradient.displaced

    def modified_loss(self, order: int | None = None) -> ModifiedLoss:
        """The loss whose gradient flow this is.

        Args:
          order: up to this power of h; `self.order` if not given.

        Raises:
          NotAGradientError: if there is none: it names the first bad power of h and a tree.
        """
        upto = self.order if order is None else check_order(order, self.order)
        if self.gradient.displaced:
            raise NotAGradientError(
                f"{self.name} follows no modified loss: its gradient is taken at a point uphill, "
                "and is not itself a gradient",
                0,
                (),
            )
        bad = self._first_obstruction(upto)
        if bad is not None:
            power, tree = bad[0], trees.as_tuple(bad[1])
            raise NotAGradientError(
                f"{self.name} follows no modified loss at h^{power}: the tree {tree} "
                f"({printing.differential(tree)}) and its other rootings have different weights, "
                f"so the field is not a gradient. A loss exists up to h^{power - 1}: "
                f"modified_loss({power - 1}). The whole field is in the equation, split by "
                "gradient_part() and obstruction()",
                power,
                tree,
            )
        equation = self.truncate(upto)
        free = {}
        for t, b in equation.weights.items():
            if trees.rooted_alike(t)[0] == t:
                free[t] = b
        return ModifiedLoss(self.name, upto, free, self.domain, self.gradient)

    def gradient_part(self) -> ModifiedEquation:
        """The part of the field that is a gradient for every loss.

        It gives all rootings of a free tree the weight of one of them, the representative whose
        root has the most children (`trees.rootings`): a linear projection that leaves gradients
        as they are, and a rest without the highest derivative of E. For gradient descent at h^2
        it is -(1/12) grad(g'Hg).
        """
        weights = {}
        for n in range(1, self.order + 2):
            for t in trees.of_order(n):
                b = self.weights.get(trees.rooted_alike(t)[0])
                if b is not None:
                    weights[t] = b
        return self._part("gradient part", weights)

    def obstruction(self) -> ModifiedEquation:
        """What `gradient_part` leaves: -(1/6) H^2 g for gradient descent at h^2."""
        part = self.gradient_part().weights
        zero = self.domain.zero
        rest = {t: self.weights.get(t, zero) - part.get(t, zero) for t in {**part, **self.weights}}
        ordered = sorted((t for t, b in rest.items() if b), key=lambda t: (trees.size(t), t))
        return self._part("obstruction", {t: rest[t] for t in ordered})

    def _part(self, which: str, weights: Mapping[int, Any]) -> ModifiedEquation:
        if self.gradient.displaced:
            raise ValueError(
                f"{self.name} has no gradient part: its gradient is taken at a point uphill, and "
                "is not itself a gradient"
            )
        name = named(self.name).followed_by(f", {which}")
        return ModifiedEquation(name, self.order, weights, self.domain, self.gradient)

    def _first_obstruction(self, order: int | None) -> tuple[int, int] | None:
        """The lowest power of h at which rootings differ, and a tree there."""
        upto = self.order if order is None else check_order(order, self.order)
        zero = self.domain.zero
        found = []
        for n in range(1, upto + 2):
            for t in trees.of_order(n):
                representative = trees.rooted_alike(t)[0]
                apart = self.weights.get(t, zero) - self.weights.get(representative, zero)
                if apart:
                    further = step_powers(self._expression(apart))[0][0]
                    found.append((n - 1 + further, t))
            if found and min(found)[0] <= n - 1:
                break  # larger trees come with higher powers
        return min(found, key=lambda at: at[0]) if found and min(found)[0] <= upto else None

    # Closed form and print

    def on(self, loss: sympy.Expr, params: Sequence[sympy.Symbol], h: Any) -> sympy.Matrix:
        """The field in closed form on a loss given as a sympy expression.

        Args:
          loss: E, an expression in `params` and anything else.
          params: the m parameters, symbols.
          h: the step, a symbol or number.

        Returns:
          The field, an m x 1 Matrix, each power of h simplified on its own.

        The two-parameter model of Barrett and Dherin (2021), equation A.28:

        >>> from igr.backward_error import methods, modified_equation
        >>> a, b, x, y, h = sympy.symbols("a b x y h")
        >>> eq = modified_equation(methods.gradient_descent(), 0)
        >>> eq.on((y - a * b * x) ** 2 / 2, (a, b), h)
        Matrix([
        [-b*x*(a*b*x - y)],
        [-a*x*(a*b*x - y)]])
        """
        at = Differentials(loss, params, self.gradient)
        h = exact(h, "h")
        field = sympy.zeros(len(at.params), 1)
        for power, terms in by_power(self.coefficients):
            column = sympy.zeros(len(at.params), 1)
            for tree, c in terms:
                column += c * at.field(tree)
            # Gradients taken uphill are nested roots, which would be factored for ever.
            simplified = column if self.gradient.displaced else column.applyfunc(sympy.factor)
            field += h**power * simplified
        return field

    def latex(self) -> str:
        r"""The equation as LaTeX, in g, H and nabla^k E[., .].

        >>> from igr.backward_error import methods, modified_equation
        >>> print(modified_equation(methods.gradient_descent(), 1).latex())
        \dot\theta = -g - \frac{h}{2} H g + O(h^{2})
        """
        return printing.equation(self.coefficients, self.order, True, self.gradient)

    def __str__(self) -> str:
        return printing.equation(self.coefficients, self.order, False, self.gradient)

    def __hash__(self) -> int:
        return hash((self.name, self.order, frozenset(self.weights.items())))

    def __reduce__(self):
        return restored, pickled(self)

    def __repr__(self) -> str:
        return f"<modified equation of {self.name}, order {self.order}: {self}>"

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.latex()}$"

    def _expression(self, weight: Any) -> sympy.Expr:
        return self.domain.to_sympy(weight)


def _cut(weights: Mapping[int, Any], domain: Any, order: int) -> dict[int, Any]:
    """The weights up to h^order, in trees and in the powers of h that stand in them."""
    kept = {t: b for t, b in weights.items() if trees.size(t) <= order + 1}
    if STEP not in getattr(domain, "symbols", ()) and not domain.is_EX:
        return kept
    for t, b in list(kept.items()):
        most = order + 1 - trees.size(t)
        terms = [p * STEP**k for k, p in step_powers(domain.to_sympy(b)) if k <= most]
        kept[t] = domain.from_sympy(sympy.Add(*terms))
    return {t: b for t, b in kept.items() if b}
