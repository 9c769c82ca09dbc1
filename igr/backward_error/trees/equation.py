"""The modified equation of a method as a series over trees, and whether it is a gradient.

An optimizer with a finite step h follows theta' = F(theta) with

    F = sum_t h^(|t|-1) c(t) F(t),

t over rooted trees, F(t) the elementary differential of t over f = -grad E. Where the optimizer
descends several losses, those of two players or of the batches of an epoch, the vertices carry
colours, and a `Colouring` says what they stand for. The field is the gradient of a loss for every E
exactly when b(t) = c(t) sigma(t) is the same for all rootings of each free tree (`loss`): for
gradient descent up to h^1. At h^2 a modified equation exists, a modified loss does not.

Under decoupled weight decay the coefficients are polynomials in h besides: c h is a number that
the method itself multiplies with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sympy

from igr.backward_error.algebra.naming import named, numbers_for
from igr.backward_error.algebra.orders import check_order
from igr.backward_error.algebra.taylor import STEP, exact, fraction_field
from igr.backward_error.protocols import UnansweredError
from igr.backward_error.trees import printing, rooted
from igr.backward_error.trees.closed_form import Differentials
from igr.backward_error.trees.colouring import Colouring
from igr.backward_error.trees.loss import ModifiedLoss, NotAGradientError, pickled, restored
from igr.backward_error.trees.one_loss import PLAIN_GRADIENT
from igr.backward_error.trees.powers import by_power, step_powers
from igr.backward_error.trees.rooted import Tree
from igr.checks import Count
from igr.shown import cut


@dataclass(frozen=True, repr=False)
class ModifiedEquation:
    """The modified equation of an optimizer as a sum over rooted trees.

    theta' = sum_t h^(|t|-1) c(t) F(t), truncated after `order` powers of h, with c(t) exact and
    F(t) the elementary differential of the tree t.

    Attributes:
      name: the method, or the part of a method's equation.
      order: the highest power of h kept.
      weights: b(t) = c(t) sigma(t) for the trees (as integers of `trees`) where it is not zero.
      domain: the sympy field the weights are elements of.
      colouring: what the vertices stand for: the gradient of E, or of more, a player, a batch.
    """

    name: str
    order: int
    weights: Mapping[int, Any]
    domain: Any
    colouring: Colouring = PLAIN_GRADIENT

    # Coefficients

    @property
    def kept(self) -> tuple[str, ...]:
        """The empty tuple: no optimizer state is a variable of the flow."""
        return ()

    def coefficient(self, tree: Tree) -> sympy.Expr:
        """The exact coefficient c(t) of h^(|t|-1) F(t), where F(t) is over f = -grad E.

        Under decoupled weight decay it is a polynomial in the symbol `h`.

        Args:
          tree: nested tuple of children; `()` is one vertex. Children may stand in any order. For
            two players and for SGD in epochs `(colour, *children)`: players 0 and 1; vertices
            marked 1 share one batch, or in a fixed order come before their parent.

        Raises:
          ValueError: if the tree has more vertices than the equation keeps.
          TypeError: if it is not such a tree.

        >>> from igr.backward_error import methods, modified_equation
        >>> modified_equation(methods.gradient_descent(), 2).coefficient(((), ()))
        1/12
        """
        t = self.colouring.read(tree)
        if rooted.size(t) > self.order + 1:
            raise ValueError(
                f"the tree {tree} belongs to h^{rooted.size(t) - 1}, beyond the order "
                f"{self.order} of this equation: derive it to a higher order"
            )
        return self._expression(self.weights.get(t, self.domain.zero)) / rooted.sigma(t)

    @cached_property
    def coefficients(self) -> dict[Tree, sympy.Expr]:
        """Each tree with a nonzero coefficient c(t) -> c(t), by increasing number of vertices."""
        return {
            rooted.as_tuple(t): self._expression(b) / rooted.sigma(t)
            for t, b in self.weights.items()
        }

    @property
    def parameters(self) -> tuple[sympy.Symbol, ...]:
        """The free symbols of the coefficients, sorted by name."""
        free = set(self.colouring.free_symbols)
        for b in self.weights.values():
            free |= self._expression(b).free_symbols
        return tuple(sorted(free - {STEP}, key=str))

    def subs(self, values: Mapping[Any, Any]) -> ModifiedEquation:
        """The equation with numbers, or other expressions, in place of its symbols.

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
        name = named(self.name).subs(exact_values)
        colouring = self.colouring.subs(exact_values)
        pairs = zip(self.weights, elements, strict=True)
        weights = {t: b for t, b in pairs if b and not colouring.vanishes(t)}
        return ModifiedEquation(name, self.order, weights, domain, colouring)

    def truncate(self, order: Count) -> ModifiedEquation:
        """The same equation with the terms up to h^order alone."""
        order = check_order(order, self.order)
        kept = _cut(self.weights, self.domain, order)
        return ModifiedEquation(self.name, order, kept, self.domain, self.colouring)

    # Certificate

    def is_gradient(self, order: Count | None = None) -> bool:
        """Whether the field, up to h^order, is a gradient for every loss.

        Args:
          order: up to this power of h; `self.order` if not given.
        """
        bad = self._first_obstruction(order)
        return bad is None and self.colouring.no_gradient() is None

    def modified_loss(self, order: Count | None = None) -> ModifiedLoss:
        """The modified loss, whose gradient flow the equation is.

        Args:
          order: up to this power of h; `self.order` if not given.

        Raises:
          NotAGradientError: if there is none; it names the first power of h at which the field is
            no gradient, and a tree there.
        """
        upto = self._upto(order)
        reason = self.colouring.no_gradient()
        if reason is not None:
            raise NotAGradientError(f"{self.name} follows no modified loss: {reason}", 0, ())
        bad = self._first_obstruction(upto)
        if bad is not None:
            power, tree = bad[0], rooted.as_tuple(bad[1])
            raise NotAGradientError(
                f"{self.name} follows no modified loss at h^{power}: the tree {tree} "
                f"({printing.differential(tree, over=self.colouring)}) and its other rootings have "
                "different weights, so the field is not a gradient. A loss exists up to "
                f"h^{power - 1}: modified_loss({power - 1}). The whole field is in the equation, "
                "split by gradient_part() and obstruction()",
                power,
                tree,
            )
        weights = self.truncate(upto).weights
        free = {t: b for t, b in weights.items() if self.colouring.representative(t) == t}
        return ModifiedLoss(self.name, upto, free, self.domain, self.colouring)

    def gradient_part(self) -> ModifiedEquation:
        """The part of the field that is a gradient for every loss.

        It gives all rootings of a free tree the weight of one of them, the representative whose
        root has the most children (`trees.rootings`): a linear projection that leaves gradients
        as they are, and a rest without the highest derivative of E. For gradient descent at h^2
        it is -(1/12) grad(g'Hg).
        """
        weights = {}
        for t in self._trees(self.order):
            b = self._of_representative(t)
            if b:
                weights[t] = b
        return self._part("gradient part", weights)

    def obstruction(self) -> ModifiedEquation:
        """The equation less its gradient part: -(1/6) H^2 g for gradient descent at h^2."""
        part = self.gradient_part().weights
        zero = self.domain.zero
        rest = {t: self.weights.get(t, zero) - part.get(t, zero) for t in {**part, **self.weights}}
        ordered = sorted((t for t, b in rest.items() if b), key=lambda t: (rooted.size(t), t))
        return self._part("obstruction", {t: rest[t] for t in ordered})

    def _of_representative(self, t: int) -> Any:
        """The weight of the rooting that stands for the free tree; 0 if there is none."""
        representative = self.colouring.representative(t)
        zero = self.domain.zero
        return zero if representative is None else self.weights.get(representative, zero)

    def _part(self, which: str, weights: Mapping[int, Any]) -> ModifiedEquation:
        reason = self.colouring.no_gradient()
        if reason is not None:
            raise UnansweredError(f"{self.name} has no gradient part: {reason}")
        name = named(self.name).followed_by(f", {which}")
        return ModifiedEquation(name, self.order, weights, self.domain, self.colouring)

    def _first_obstruction(self, order: Count | None) -> tuple[int, int] | None:
        """The lowest power of h at which rootings differ in weight, and a tree there."""
        upto, zero = self._upto(order), self.domain.zero
        best = None
        for t in self._trees(upto):
            if best is not None and best[0] <= rooted.size(t) - 1:
                break  # larger trees come with higher powers
            apart = self.weights.get(t, zero) - self._of_representative(t)
            if apart:
                power = rooted.size(t) - 1 + step_powers(self._expression(apart))[0][0]
                if power <= upto and (best is None or power < best[0]):
                    best = power, t
        return best

    def _upto(self, order: Count | None) -> int:
        return self.order if order is None else check_order(order, self.order)

    def _trees(self, order: int) -> Iterator[int]:
        """All trees of the equation's colours whose terms have at most h^order."""
        for n in range(1, order + 2):
            yield from rooted.of_order(n, self.colouring.palette)

    # Closed form and print

    def on(self, loss: Any, params: Any, h: Any) -> sympy.Matrix:
        """The field in closed form on losses given as sympy expressions.

        Args:
          loss: E, an expression in `params` and other symbols; for SGD in epochs the sequence of
            the batches' losses, for two players the pair of theirs.
          params: the parameters, symbols; for two players the pair of theirs.
          h: the step, a symbol or number.

        Returns:
          The field, a Matrix of one column, each power of h simplified on its own.

        The two-parameter model of Barrett and Dherin (2021), equation A.28:

        >>> from igr.backward_error import methods, modified_equation
        >>> a, b, x, y, h = sympy.symbols("a b x y h")
        >>> eq = modified_equation(methods.gradient_descent(), 0)
        >>> eq.on((y - a * b * x) ** 2 / 2, (a, b), h)
        Matrix([
        [-b*x*(a*b*x - y)],
        [-a*x*(a*b*x - y)]])
        """
        losses = self.colouring.losses(loss, params, self.name)
        at, h = Differentials(losses), exact(h, "h")
        field = sympy.zeros(len(losses.params), 1)
        for power, terms in by_power(self.coefficients):
            column = sympy.zeros(len(losses.params), 1)
            for tree, c in terms:
                column += c * at.field(rooted.intern(tree))
            field += h**power * column.applyfunc(losses.tidy)
        return field

    def right_side(self, latex: bool) -> str:
        """The field as text, without the remainder O(h^(order + 1))."""
        return printing.summed(
            printing.field_terms(self.coefficients, latex, self.colouring), self.order, latex
        )

    def latex(self) -> str:
        r"""The equation as LaTeX, in g, H and nabla^k E[., .].

        >>> from igr.backward_error import methods, modified_equation
        >>> print(modified_equation(methods.gradient_descent(), 1).latex())
        \dot\theta = -g - \frac{h}{2} H g + O(h^{2})
        """
        return printing.equation(self.coefficients, self.order, True, self.colouring)

    def __str__(self) -> str:
        return printing.equation(self.coefficients, self.order, False, self.colouring)

    def __hash__(self) -> int:
        return hash((self.name, self.order, frozenset(self.weights.items())))

    def __reduce__(self):
        return restored, pickled(self)

    def __repr__(self) -> str:
        return f"<modified equation of {self.name}, order {self.order}: {cut(str(self), 400)}>"

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.latex()}$"

    def _expression(self, weight: Any) -> sympy.Expr:
        return self.domain.to_sympy(weight)


def _cut(weights: Mapping[int, Any], domain: Any, order: int) -> dict[int, Any]:
    """The weights with all terms beyond h^order removed."""
    kept = {t: b for t, b in weights.items() if rooted.size(t) <= order + 1}
    if STEP not in getattr(domain, "symbols", ()) and not domain.is_EX:
        return kept
    for t, b in list(kept.items()):
        most = order + 1 - rooted.size(t)
        terms = [p * STEP**k for k, p in step_powers(domain.to_sympy(b)) if k <= most]
        kept[t] = domain.from_sympy(sympy.Add(*terms))
    return {t: b for t, b in kept.items() if b}
