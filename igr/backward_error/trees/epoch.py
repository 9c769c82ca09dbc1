"""SGD that visits every batch once an epoch, in a fixed or in random order: method and equation.

With L = mean_k L_k over m batches, an epoch is m steps theta <- theta - h grad L_k and takes the
time m h. In a fixed order its iterates lie on the flow of a modified equation, to every order. In
random order their *mean* does, up to h^2: the mean of an epoch is a map of its starting point, and
its logarithm is the equation. From h^3 on the iterates' spread, itself of order h^3 after a time
of order one, moves the mean of the epochs that follow, and no equation in the mean alone is right.

The field is kept as a series over `batch_trees` in sums over batches, where m does not appear:
time m h for the step h makes it 1/m of the logarithm of the epoch. What is shown is over means
over batches, and m stands in the coefficients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import sympy

from igr.backward_error.algebra.naming import Name, named, numbers_for
from igr.backward_error.algebra.orders import check_order
from igr.backward_error.algebra.taylor import exact
from igr.backward_error.protocols import Memory
from igr.backward_error.trees import batches as batch_trees
from igr.backward_error.trees.batches import FREE, MARKED, BatchTree
from igr.backward_error.trees.epoch_closed_form import SumsOverBatches
from igr.backward_error.trees.epoch_loss import EpochLoss, require_batches
from igr.backward_error.trees.epoch_printing import differential
from igr.backward_error.trees.loss import NotAGradientError
from igr.backward_error.trees.printing import expansion

MOST_RESHUFFLED = 2


@dataclass(frozen=True)
class EpochMethod:
    """SGD that takes each of m batches once an epoch.

    Attributes:
      name: how the method calls itself in print and in errors.
      num_batches: m, a positive integer or a symbol.
      order: the order of the batches, fixed; None if it is drawn anew for each epoch. Empty if m
        is a symbol.
    """

    name: str
    num_batches: sympy.Expr
    order: tuple[int, ...] | None

    @property
    def parameters(self) -> tuple[sympy.Symbol, ...]:
        """The symbols left open: m, if it is one."""
        return tuple(self.num_batches.free_symbols)

    @property
    def kept(self) -> tuple[str, ...]:
        """No state stays a variable of the flow."""
        return ()

    def equation(self, order: int) -> EpochEquation:
        """The modified equation, to h^order."""
        return epoch_equation(self, check_order(order))

    def memory(self) -> Memory:
        """None of gradients."""
        return Memory()

    def response(self) -> None:
        """None: what a step does depends on its batch."""
        return None


def reshuffled_sgd(num_batches: Any) -> EpochMethod:
    """SGD in epochs of `num_batches` steps, the order of the batches drawn anew for each.

    Its equation is that of the mean iterate after each epoch, at times n m h, up to h^2. At h^1 it
    is the flow of L + h/(4 m) sum_k |grad L_k|^2 (Smith, Dherin, Barrett and De 2021, On the origin
    of implicit regularization in stochastic gradient descent, equation 1).

    Args:
      num_batches: m, an integer of at least 1, or a sympy symbol.

    Returns:
      A method for `igr.modified_equation`.

    Raises:
      ValueError: if `num_batches` is not a positive integer or a symbol.

    >>> from sympy import Symbol
    >>> from igr.backward_error import modified_equation
    >>> eq = modified_equation(reshuffled_sgd(Symbol("m")), order=1)
    >>> print(eq)
    θ' = -g - h/2 ⟨Hₖ gₖ⟩ + O(h²)
    >>> print(eq.modified_loss())
    E + h/4 ⟨|gₖ|²⟩ + O(h²)
    """
    m = _number_of_batches(num_batches)
    return EpochMethod(Name("reshuffled SGD", {"num_batches": m}), m, None)


def cyclic_sgd(batches: Any) -> EpochMethod:
    """SGD in epochs that all take the batches in one and the same order.

    The equation passes through the iterate after each epoch, at times n m h. At h^1 it remembers
    the order: F1 = (1/m) sum_{j<k} H_k g_j - (m/2) H g, the gradient of nothing.

    Args:
      batches: their number m, an integer or a sympy symbol, for the order 0, 1, .., m - 1; or
        their order, a sequence with each of 0, 1, .., m - 1 once.

    Returns:
      A method for `igr.modified_equation`.

    Raises:
      ValueError: if `batches` is not a positive integer, a symbol or a permutation.

    >>> from sympy import Symbol
    >>> from igr.backward_error import modified_equation
    >>> print(modified_equation(cyclic_sgd(Symbol("m")), order=1))
    θ' = -g - h (m/2 H g - m ⟨Hₖ gⱼ; j<k⟩) + O(h²)
    """
    if isinstance(batches, Sequence) and not isinstance(batches, str):
        if sorted(batches) != list(range(len(batches))) or not batches:
            raise ValueError(
                f"batches is a number of batches or their order, a permutation of 0 .. m - 1; "
                f"got {batches!r}"
            )
        order = tuple(int(k) for k in batches)
        return EpochMethod(f"cyclic SGD (batches {order})", sympy.Integer(len(order)), order)
    m = _number_of_batches(batches, "batches")
    order = tuple(range(int(m))) if m.is_Integer else ()
    return EpochMethod(Name("cyclic SGD", {"batches": m}), m, order)


def epoch_equation(method: EpochMethod, order: int) -> EpochEquation:
    """Derives the equation of epochs of SGD.

    Args:
      method: from `reshuffled_sgd` or `cyclic_sgd`.
      order: the highest power of h kept, at least 0.

    Raises:
      ValueError: for an order above 2 of reshuffled SGD.
    """
    ordered = method.order is not None
    if not ordered and order > MOST_RESHUFFLED:
        raise ValueError(
            f"the mean of {method.name} follows an equation of its own up to h^{MOST_RESHUFFLED}, "
            f"got order {order}: from h^3 on it depends on the spread of the iterates"
        )
    step = batch_trees.epoch(order + 1)
    if not ordered:
        step = batch_trees.mean_over_orders(step)
    sums = batch_trees.logarithm(step, order + 1)
    if ordered and method.num_batches == 1:  # no batch comes before another
        sums = {t: c for t, c in sums.items() if MARKED not in batch_trees.marks(t)}
    return EpochEquation(method.name, order, method.num_batches, method.order, sums)


@dataclass(frozen=True, repr=False)
class EpochEquation:
    """theta' = sum_t h^(|t|-1) c(t) F(t) over trees whose vertices stand for batches.

    Attributes:
      name: the method.
      order: the highest power of h kept.
      num_batches: m.
      batches: the order of the batches, which marks in trees refer to; None if it is random, where
        marks tell which vertices share a batch.
      sums: the coefficients of m F over sums over batches.
    """

    name: str
    order: int
    num_batches: sympy.Expr
    batches: tuple[int, ...] | None
    sums: Mapping[BatchTree, Fraction]

    @property
    def ordered(self) -> bool:
        """Whether the batches come in a fixed order."""
        return self.batches is not None

    @cached_property
    def coefficients(self) -> dict[BatchTree, sympy.Expr]:
        """c(t) for every tree where it is not zero, F(t) over f_k = -grad L_k.

        F(t) is the mean over all batches: over every vertex that has its own, and over the one
        that marked vertices share; in a fixed order over every vertex, where batches in another
        order than the marks ask count as zero.
        """
        m = self.num_batches
        return {
            t: sympy.Rational(c.numerator, c.denominator) * m ** (means(t, self.ordered) - 1)
            for t, c in self.sums.items()
        }

    def coefficient(self, tree: BatchTree) -> sympy.Expr:
        """The coefficient of h^(|t|-1) F(t), F(t) over f_k = -grad L_k.

        Args:
          tree: nested tuple (mark, *children). For reshuffled SGD, vertices marked 1 share one
            batch; for cyclic SGD the batch of one marked 1 comes before its parent's.

        >>> from igr.backward_error import modified_equation
        >>> modified_equation(reshuffled_sgd(8), 1).coefficient((1, (1,)))
        -1/2
        """
        tree = batch_trees.canonical(tree)
        if batch_trees.order(tree) > self.order + 1:
            raise ValueError(
                f"the tree {tree} belongs to h^{batch_trees.order(tree) - 1}, beyond the order "
                f"{self.order} of this equation: derive it to a higher order"
            )
        return self.coefficients.get(tree, sympy.Integer(0))

    @property
    def parameters(self) -> tuple[sympy.Symbol, ...]:
        """The symbols left open: m, if it is one."""
        return tuple(self.num_batches.free_symbols)

    def subs(self, values: Mapping[Any, Any]) -> EpochEquation:
        """The equation with a number for the symbol m.

        Args:
          values: by symbol, or by its name.

        Raises:
          ValueError: for a symbol that the equation does not have, or what is no number of batches.
        """
        exact_values = numbers_for(self.parameters, values)
        if not exact_values:
            return self
        m = _number_of_batches(*exact_values.values())
        order = tuple(range(int(m))) if self.ordered and m.is_Integer else self.batches
        name = named(self.name).subs(exact_values)
        return epoch_equation(EpochMethod(name, m, order), self.order)

    def truncate(self, order: int) -> EpochEquation:
        """The same equation with fewer powers of h."""
        if not 0 <= order <= self.order:
            raise ValueError(f"order is from 0 to {self.order}, that of the equation; got {order}")
        kept = {t: c for t, c in self.sums.items() if batch_trees.order(t) <= order + 1}
        return replace(self, order=order, sums=kept)

    def is_gradient(self, order: int | None = None) -> bool:
        """Whether the field, up to h^order, is a gradient for all losses.

        Args:
          order: up to this power of h; `self.order` if not given.
        """
        return self._first_obstruction(order) is None

    def modified_loss(self, order: int | None = None) -> EpochLoss:
        """The loss whose gradient flow this is.

        Args:
          order: up to this power of h; `self.order` if not given.

        Raises:
          NotAGradientError: if there is none: it names the first bad power of h and a tree.
        """
        bad = self._first_obstruction(order)
        if bad is not None:
            power = batch_trees.order(bad) - 1
            raise NotAGradientError(
                f"{self.name} follows no modified loss at h^{power}: "
                f"{differential(bad, self.ordered)} and its other rootings have different weights, "
                f"so the field is not a gradient. A loss exists up to h^{power - 1}: "
                f"modified_loss({power - 1})",
                power,
                bad,
            )
        upto = self.order if order is None else order
        # At h^2 no method of this kind has a loss: an edge is the largest free tree there is.
        edges = {
            t: -c / 2 if len(t) == 2 else c
            for t, c in self.coefficients.items()
            if batch_trees.order(t) <= upto + 1
        }
        return EpochLoss(self.name, upto, self.num_batches, edges)

    def _first_obstruction(self, order: int | None) -> BatchTree | None:
        upto = self.order if order is None else order
        if not 0 <= upto <= self.order:
            raise ValueError(f"order is from 0 to {self.order}, that of the equation; got {upto}")
        for t, c in self.sums.items():
            if batch_trees.order(t) > upto + 1:
                continue
            if self.ordered and MARKED in batch_trees.marks(t):
                return t  # rooted elsewhere it would be a sum over the opposite order
            weight = c * batch_trees.symmetry(t)
            for rooting in batch_trees.rootings(t):
                if self.sums.get(rooting, 0) * batch_trees.symmetry(rooting) != weight:
                    return t
        return None

    def on(
        self, losses: Sequence[sympy.Expr], params: Sequence[sympy.Symbol], h: Any
    ) -> sympy.Matrix:
        """The field in closed form on losses given as sympy expressions.

        Args:
          losses: L_0, .., L_(m-1), expressions in `params` and anything else.
          params: the parameters, symbols.
          h: the step, a symbol or number.

        Returns:
          The field, a Matrix with one column.

        Raises:
          ValueError: if there are not as many losses as batches.

        >>> from igr.backward_error import modified_equation
        >>> x, h = sympy.symbols("x h")
        >>> eq = modified_equation(reshuffled_sgd(2), order=1)
        >>> eq.on([x**2, 2 * x**2], [x], h)
        Matrix([[-5*h*x - 3*x]])
        """
        losses = [exact(loss, "losses") for loss in losses]
        require_batches(self, len(losses), "losses")
        at = SumsOverBatches(
            [losses[k] for k in self.batches or range(len(losses))], params, self.ordered
        )
        field = sympy.zeros(len(params), 1)
        for t, c in self.sums.items():
            factor = sympy.Rational(c.numerator, c.denominator) / len(losses)
            field += exact(h, "h") ** (batch_trees.order(t) - 1) * factor * at.total(t)
        return field.applyfunc(sympy.expand)

    def latex(self) -> str:
        r"""The equation as LaTeX: g and H without an index are means, and so are angle brackets."""
        return self._printed(latex=True)

    def __str__(self) -> str:
        return self._printed(latex=False)

    def _printed(self, latex: bool) -> str:
        terms = [
            (batch_trees.order(t) - 1, (-1) ** batch_trees.order(t) * c,
             differential(t, self.ordered, latex))
            for t, c in self.coefficients.items()
        ]  # fmt: skip
        left = r"\dot\theta" if latex else "θ'"
        return f"{left} = {expansion(terms, self.order, latex)}"

    def __hash__(self) -> int:
        return hash((self.name, self.order, self.num_batches, frozenset(self.sums.items())))

    def __repr__(self) -> str:
        return f"<modified equation of {self.name}, order {self.order}: {self}>"

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.latex()}$"


def means(tree: BatchTree, ordered: bool) -> int:
    """Over how many batches, each on its own, a tree is a sum."""
    if ordered:
        return batch_trees.order(tree)
    found = list(batch_trees.marks(tree))
    return found.count(FREE) + (MARKED in found)


def _number_of_batches(value: Any, argument: str = "num_batches") -> sympy.Expr:
    m = exact(value, argument)
    if not (m.is_Symbol or (m.is_Integer and m >= 1)):
        raise ValueError(f"{argument} is an integer of at least 1 or a sympy symbol, got {value!r}")
    return m
