"""SGD whose batches are drawn anew for every step: method, and stochastic modified equation.

One step takes E phi(theta) to the mean of phi(theta - h g_batch). As an operator on functions phi,

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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sympy

from igr.backward_error.algebra.naming import Name
from igr.backward_error.algebra.orders import check_order
from igr.backward_error.algebra.taylor import exact
from igr.backward_error.protocols import Memory

if TYPE_CHECKING:
    from igr.backward_error.trees.equation import ModifiedEquation
    from igr.backward_error.trees.loss import ModifiedLoss

MOST = 1


@dataclass(frozen=True)
class SampledMethod:
    """theta <- theta - h (mean gradient of B examples drawn with replacement).

    Attributes:
      name: how the method calls itself in print and in errors.
      batch_size: B, an integer of at least 1 or a symbol.
    """

    name: str
    batch_size: sympy.Expr

    @property
    def parameters(self) -> tuple[sympy.Symbol, ...]:
        """The symbols left open: B, if it is one."""
        return tuple(self.batch_size.free_symbols)

    @property
    def kept(self) -> tuple[str, ...]:
        """No state stays a variable of the flow."""
        return ()

    def equation(self, order: int) -> StochasticEquation:
        """The stochastic modified equation, to h^order."""
        return stochastic_equation(self, check_order(order))

    def memory(self) -> Memory:
        """None of gradients."""
        return Memory()

    def response(self) -> None:
        """None: what a step does depends on its batch."""
        return None


def sgd_with_replacement(batch_size: Any = 1) -> SampledMethod:
    """SGD that draws `batch_size` examples for every step, with replacement.

    Its equation is stochastic: `igr.flows.stochastic_field` compiles it for diffrax,
    `igr.flows.moments_field` to an equation for mean and covariance. Order 0 has weak order 1,
    order 1 has weak order 2.

    Args:
      batch_size: B, an integer of at least 1, or a sympy symbol.

    Returns:
      A method for `igr.modified_equation`.

    Raises:
      ValueError: if `batch_size` is not a positive integer or a symbol.

    >>> from igr.backward_error import modified_equation
    >>> print(modified_equation(sgd_with_replacement(8), order=1))
    dθ = (-g - h/2 H g) dt + √(h Σ/8) dW, weak order 2
    """
    size = exact(batch_size, "batch_size")
    if not (size.is_Symbol or (size.is_Integer and size >= 1)):
        raise ValueError(
            f"batch_size is an integer of at least 1 or a sympy symbol, got {batch_size!r}"
        )
    return SampledMethod(Name("SGD with replacement", {"batch_size": size}), size)


def stochastic_equation(method: SampledMethod, order: int) -> StochasticEquation:
    """Derives the stochastic equation of SGD with replacement.

    Args:
      method: from `sgd_with_replacement`.
      order: the highest power of h kept in the drift: 0 or 1.

    Raises:
      ValueError: for an order above 1.
    """
    from igr.backward_error.methods.linear import LinearMethod  # which knows this package

    if order > MOST:
        raise ValueError(
            f"{method.name} follows a stochastic equation of order 0 or 1 (weak order 1 or 2), got "
            f"order {order}: beyond, the third moments of its gradients show, and no diffusion has "
            "those"
        )
    # The mean of one step is a step of gradient descent, and the covariance does not meet it
    # before h^3: the drift is the field of gradient descent.
    drift = LinearMethod("gradient descent", sympy.Integer(1)).equation(order)
    return StochasticEquation(method.name, order, method.batch_size, drift)


@dataclass(frozen=True, repr=False)
class StochasticEquation:
    """d theta = drift dt + sqrt(h Sigma / B) dW, Sigma the covariance of an example's gradient.

    Attributes:
      name: the method.
      order: the highest power of h kept in the drift.
      batch_size: B.
      drift: the equation of the drift, that of gradient descent.
    """

    name: str
    order: int
    batch_size: sympy.Expr
    drift: ModifiedEquation

    @property
    def weak_order(self) -> int:
        """The power of h with which errors of expectations fall at a fixed time."""
        return self.order + 1

    @property
    def parameters(self) -> tuple[sympy.Symbol, ...]:
        """The symbols left open: B, if it is one."""
        return tuple(self.batch_size.free_symbols)

    def truncate(self, order: int) -> StochasticEquation:
        """The same equation with fewer powers of h in the drift."""
        drift = self.drift.truncate(order)
        return StochasticEquation(self.name, drift.order, self.batch_size, drift)

    def modified_loss(self, order: int | None = None) -> ModifiedLoss:
        """The loss whose gradient is the drift: E + h/4 |g|^2 at order 1."""
        return self.drift.modified_loss(order)

    def on(
        self, losses: Sequence[sympy.Expr], params: Sequence[sympy.Symbol], h: Any
    ) -> tuple[sympy.Matrix, sympy.Matrix]:
        """Drift and diffusion in closed form.

        Args:
          losses: of each example, expressions in `params` and anything else.
          params: the parameters, symbols.
          h: the step, a symbol or number.

        Returns:
          The drift, a column, and the covariance h Sigma/B that the noise gains per unit of time.

        >>> from igr.backward_error import modified_equation
        >>> x, h = sympy.symbols("x h")
        >>> eq = modified_equation(sgd_with_replacement(2), order=0)
        >>> eq.on([x**2, 2 * x**2], [x], h)
        (Matrix([[-3*x]]), Matrix([[h*x**2/2]]))
        """
        losses = [exact(loss, "losses") for loss in losses]
        if not losses:
            raise ValueError("losses holds the loss of at least one example, got none")
        mean = sum(losses, sympy.Integer(0)) / len(losses)
        drift = self.drift.on(mean, params, h)
        covariance = sympy.zeros(len(params), len(params))
        for loss in losses:
            apart = sympy.Matrix([sympy.diff(loss - mean, p) for p in params])
            covariance += apart * apart.T / len(losses)
        return drift, (exact(h, "h") / self.batch_size * covariance).applyfunc(sympy.factor)

    def latex(self) -> str:
        r"""The equation as LaTeX."""
        drift = _without_rest(self.drift.latex(), r"\dot\theta = ", " + O(")
        noise = "h" if self.batch_size == 1 else rf"\frac{{h}}{{{sympy.latex(self.batch_size)}}}"
        return (
            rf"d\theta = \left({drift}\right) dt + \sqrt{{{noise} \Sigma}}\, dW, "
            rf"\text{{ weak order {self.weak_order}}}"
        )

    def __str__(self) -> str:
        drift = _without_rest(str(self.drift), "θ' = ", " + O(")
        over = "" if self.batch_size == 1 else f"/{self.batch_size}"
        return f"dθ = ({drift}) dt + √(h Σ{over}) dW, weak order {self.weak_order}"

    def __repr__(self) -> str:
        return f"<stochastic equation of {self.name}: {self}>"

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.latex()}$"


def _without_rest(printed: str, left: str, rest: str) -> str:
    return printed.removeprefix(left).rsplit(rest, 1)[0]
