"""A stochastic modified equation: a drift, which is an equation of any kind, and a diffusion.

One step of SGD with batches drawn anew takes E phi(theta) to the mean of phi(theta - h g_batch). As
an operator on functions phi,

    A = 1 - h g.D + (h^2/2) (g g' + Sigma/B) : D D + O(h^3),

D the derivative, Sigma the covariance of one example's gradient and B the batch size. Its logarithm
is h times the generator of a Markov process. (g.D)^2 = g g' : D D + (H g).D, so that

    log A = - h (g + (h/2) H g).D + (h^2/2) (Sigma/B) : D D + O(h^3),

the generator of d theta = -(g + (h/2) H g) dt + sqrt(h Sigma/B) dW. Kept to h^2 the process has
weak order 2, to the leading drift and noise weak order 1 (Li, Tai and E 2019, Stochastic modified
equations and dynamics of stochastic gradient algorithms I). The h^3 of the logarithm has
third derivatives, from the gradients' third moments: no diffusion has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy

from igr.backward_error.algebra.naming import named, numbers_for
from igr.backward_error.algebra.taylor import exact
from igr.backward_error.algebra.tex import tex
from igr.backward_error.trees.colouring import symbols
from igr.backward_error.trees.equation import ModifiedEquation
from igr.checks import Count
from igr.shown import cut

MOST = 1


@dataclass(frozen=True)
class Diffusion:
    """The noise sqrt(h Sigma/B) dW, where Sigma is the covariance of one example's gradient.

    Attributes:
      batch_size: B, an integer of at least 1 or a symbol.
    """

    batch_size: sympy.Expr

    def on(self, losses: Sequence[sympy.Expr], params: Sequence[sympy.Symbol], h: Any) -> Any:
        """The noise's covariance per unit of time, h Sigma/B, in closed form: a sympy Matrix."""
        mean = sympy.Add(*losses) / len(losses)
        covariance = sympy.zeros(len(params), len(params))
        for loss in losses:
            apart = sympy.Matrix([sympy.diff(loss - mean, p) for p in params])
            covariance += apart * apart.T / len(losses)
        return (exact(h, "h") / self.batch_size * covariance).applyfunc(sympy.factor)

    def printed(self, latex: bool) -> str:
        """The noise as LaTeX or as plain text."""
        one = self.batch_size == 1
        if latex:
            noise = "h" if one else rf"\frac{{h}}{{{tex(self.batch_size)}}}"
            return rf"\sqrt{{{noise} \Sigma}}\, dW"
        return f"√(h Σ{'' if one else f'/{self.batch_size}'}) dW"


@dataclass(frozen=True, repr=False)
class StochasticEquation:
    """The stochastic modified equation of SGD: d theta = drift dt + sqrt(h Sigma/B) dW.

    Attributes:
      name: the method.
      drift: the equation of the drift.
      diffusion: the noise.
    """

    name: str
    drift: ModifiedEquation
    diffusion: Diffusion

    @property
    def order(self) -> int:
        """The highest power of h kept in the drift."""
        return self.drift.order

    @property
    def weak_order(self) -> int:
        """The power of h with which errors of expectations at a fixed time decrease."""
        return self.order + 1

    @property
    def batch_size(self) -> sympy.Expr:
        """B, the number of examples a step draws, an integer or a symbol."""
        return self.diffusion.batch_size

    @property
    def parameters(self) -> tuple[sympy.Symbol, ...]:
        """The free symbols, such as B, sorted by name."""
        free = {*self.drift.parameters, *self.batch_size.free_symbols}
        return tuple(sorted(free, key=str))

    @property
    def kept(self) -> tuple[str, ...]:
        """The names of the optimizer states that are variables of the drift."""
        return self.drift.kept

    def truncate(self, order: Count) -> StochasticEquation:
        """The same equation with the terms of the drift up to h^order alone."""
        return StochasticEquation(self.name, self.drift.truncate(order), self.diffusion)

    def subs(self, values: Mapping[Any, Any]) -> StochasticEquation:
        """The equation with numbers, or other expressions, in place of its symbols.

        Raises:
          ValueError: for a symbol that the equation does not have, or a value of B that is no
            positive integer.

        >>> from igr.backward_error import methods, modified_equation
        >>> eq = modified_equation(methods.sgd_with_replacement(sympy.Symbol("B")), order=0)
        >>> print(eq.subs({"B": 4}))
        dθ = (-g) dt + √(h Σ/4) dW, weak order 1
        """
        found = numbers_for(self.parameters, values)
        in_drift = {s: v for s, v in found.items() if s in self.drift.parameters}
        size = batch_size(self.batch_size.subs(found))
        name = named(self.name).subs(found)
        return StochasticEquation(name, self.drift.subs(in_drift), Diffusion(size))

    def is_gradient(self, order: Count | None = None) -> bool:
        """Whether the drift, up to h^order, is a gradient for every loss."""
        return self.drift.is_gradient(order)

    def modified_loss(self, order: Count | None = None) -> Any:
        """The modified loss, whose gradient flow the drift is: E + h/4 |g|^2 at order 1."""
        return self.drift.modified_loss(order)

    def gradient_part(self) -> ModifiedEquation:
        """The part of the drift that is a gradient for every loss."""
        return self.drift.gradient_part()

    def obstruction(self) -> ModifiedEquation:
        """The rest of the drift: the drift less its `gradient_part`."""
        return self.drift.obstruction()

    def on(self, loss: Any, params: Any, h: Any) -> tuple[sympy.Matrix, sympy.Matrix]:
        """The drift and the noise's covariance in closed form, as two sympy Matrices.

        Args:
          loss: the sequence of the examples' losses, expressions in `params` and other symbols.
          params: the parameters, symbols.
          h: the step, a symbol or number.

        Returns:
          The drift, an m x 1 Matrix, and the noise's covariance per unit of time, h Sigma/B, m x m.

        Raises:
          TypeError: if `loss` is no sequence of expressions or `params` are no symbols.
          ValueError: if `loss` is empty or a symbol stands twice in `params`.

        >>> from igr.backward_error import methods, modified_equation
        >>> x, h = sympy.symbols("x h")
        >>> eq = modified_equation(methods.sgd_with_replacement(2), order=0)
        >>> eq.on([x**2, 2 * x**2], [x], h)
        (Matrix([[-3*x]]), Matrix([[h*x**2/2]]))
        """
        if not isinstance(loss, Sequence) or isinstance(loss, str):
            raise TypeError(f"loss must be the sequence of the examples' losses; got {loss!r}.")
        losses = [exact(e, f"loss[{i}]") for i, e in enumerate(loss)]
        if not losses:
            raise ValueError("loss must hold the loss of at least one example; got none.")
        found = symbols(params)
        mean = sympy.Add(*losses) / len(losses)
        return self.drift.on(mean, found, h), self.diffusion.on(losses, found, h)

    def latex(self) -> str:
        r"""The equation as LaTeX."""
        drift, noise = self.drift.right_side(True), self.diffusion.printed(True)
        weak = rf"\text{{ weak order {self.weak_order}}}"
        return rf"d\theta = \left({drift}\right) dt + {noise}, {weak}"

    def __str__(self) -> str:
        drift, noise = self.drift.right_side(False), self.diffusion.printed(False)
        return f"dθ = ({drift}) dt + {noise}, weak order {self.weak_order}"

    def __repr__(self) -> str:
        return f"<stochastic equation of {self.name}: {cut(str(self), 400)}>"

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.latex()}$"


def batch_size(value: Any) -> sympy.Expr:
    """The batch size as an exact sympy number or symbol.

    Raises:
      ValueError: unless it is an integer of at least 1 or a symbol.
    """
    size = exact(value, "batch_size")
    if not (size.is_Symbol or (size.is_Integer and size >= 1)):
        raise ValueError(
            f"batch_size must be an integer of at least 1 or a sympy symbol; got {value!r}."
        )
    return size
