"""The modified equation of an optimizer whose rule is a function, without a symbolic formula.

With Psi(a_1, .., a_r, y, theta) the rule and W_i = w_0 + w_1 z + .. the memories,

    F_0 = -Psi(w_0 phi_1, .., theta),
    F_1 = sum_i (w_0/2 - w_1) J_i phi_i'[F_0] + (1/2) J_theta F_0 - (1/2) J_y F_y - (1/2) dPsi/dt,

J_i the derivative of Psi in what channel i holds, where phi' is H for the gradient itself; kept
states are read after their update, and so is the time. For one channel of the gradient it is
F_1 = (w_0/2 - w_1) J_Psi H F_0. Higher orders are worked out by Taylor mode where the field is
evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import sympy

from igr.backward_error.algebra.losses import check_loss
from igr.backward_error.algebra.naming import Name, named, numbers_for
from igr.backward_error.algebra.orders import check_order
from igr.backward_error.algebra.taylor import exact
from igr.backward_error.protocols import UnansweredError
from igr.backward_error.rules import printing
from igr.backward_error.rules.rule import RuleMethod
from igr.backward_error.trees.loss import NotAGradientError
from igr.checks import Count


@dataclass(frozen=True, repr=False)
class RuleEquation:
    """The modified equation of an optimizer whose rule is a Python function.

    theta' = F_0 + h F_1 + .., and y' for each kept state. The F_k are evaluated by Taylor mode in
    `igr.vector_field`; in print they are derivatives of the rule Psi.

    Attributes:
      name: the method.
      order: the highest power of h kept.
      method: the memories and the rule.
    """

    name: Name
    order: int
    method: RuleMethod

    @property
    def parameters(self) -> tuple[sympy.Symbol, ...]:
        """The free symbols of the memories and rates, sorted by name."""
        return self.method.parameters

    @property
    def kept(self) -> tuple[str, ...]:
        """The names of the optimizer states that are variables of the flow."""
        return self.method.kept

    def truncate(self, order: Count) -> RuleEquation:
        """The same equation with the terms up to h^order alone."""
        return RuleEquation(self.name, check_order(order, self.order), self.method)

    def subs(self, values: Mapping[Any, Any]) -> RuleEquation:
        """The equation with numbers, or other expressions, in place of symbols of the memories.

        Args:
          values: by symbol, or by its name. Floats are read as the decimal that is written.

        Raises:
          ValueError: for a symbol that the equation does not have.
        """
        found = numbers_for(self.parameters, values)
        return RuleEquation(named(self.name).subs(found), self.order, self.method.subs(found))

    def is_gradient(self, order: Count | None = None) -> NoReturn:
        """Raises `UnansweredError`: a rule given as code has no terms to inspect."""
        del order
        raise self._unanswered("whether its field is a gradient for every loss")

    def modified_loss(self, order: Count | None = None) -> NoReturn:
        """Raises `NotAGradientError`: no loss can be certified for a rule given as code."""
        del order
        raise NotAGradientError(
            f"no modified loss is certified for {self.name}: {_REASON}. Its field is compiled by "
            "igr.vector_field",
            0,
            (),
        )

    def gradient_part(self) -> NoReturn:
        """Raises `UnansweredError`: the split needs the terms of the field."""
        raise self._unanswered("what part of its field is a gradient")

    def obstruction(self) -> NoReturn:
        """Raises `UnansweredError`: the split needs the terms of the field."""
        raise self._unanswered("what part of its field is no gradient")

    def on(self, loss: Any, params: Any, h: Any) -> NoReturn:
        """Raises `UnansweredError`: a rule given as code has no closed form.

        Raises:
          TypeError: first, if `loss` is no expression or `params` are no symbols.
          UnansweredError: otherwise.
        """
        check_loss(loss, params)
        exact(h, "h")
        raise self._unanswered("its field in closed form")

    def latex(self) -> str:
        """The equation as LaTeX, with Psi for the rule and its terms at h^0 and h^1 written out."""
        return printing.equation(self, latex=True)

    def __str__(self) -> str:
        return printing.equation(self, latex=False)

    def __repr__(self) -> str:
        return f"<modified equation of {self.name}, order {self.order}>"

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.latex()}$"

    def _unanswered(self, what: str) -> UnansweredError:
        return UnansweredError(
            f"{what} cannot be said for {self.name}: {_REASON}. igr.vector_field evaluates the "
            "field at any point"
        )


_REASON = "its rule is a function and no formula, so there are no terms to look at"
