"""The protocols `Method` and `Equation`, by which all other code uses a method and its equation.

A *kind* is one way to describe an optimizer, and the equation that comes of it. Code that uses a
method or an equation never asks which kind it holds: what differs from kind to kind is behind these
two protocols, and, on the side of JAX, behind the registrations of `igr.flows`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import sympy

from igr.checks import Count


class Memory(NamedTuple):
    """How far back earlier gradients enter a step, apart from states kept as variables.

    Attributes:
      fading: the factor by which the slowest memory fades in a step, in [0, 1): beta for momentum,
        0 for a method without memory or whose memory ends after finitely many steps.
      steps: how many steps back a gradient has a weight of its own, besides the exponential decay.
    """

    fading: float = 0.0
    steps: int = 0


@runtime_checkable
class LinearResponse(Protocol):
    """How a method acts on one mode of a quadratic, as a function of x = h times the curvature.

    Where the method preconditions, the curvature is that of the preconditioned Hessian.
    """

    def stability_limit(self) -> float:
        """The largest x at which the method does not diverge."""
        ...

    def convergence_radius(self) -> float:
        """The x below which the modified equation's expansion in h converges."""
        ...


@runtime_checkable
class Method(Protocol):
    """What any optimizer answers: its name, memory, modified equation and linear response."""

    @property
    def name(self) -> str:
        """The method's name in print and in errors."""
        ...

    @property
    def parameters(self) -> tuple[sympy.Symbol, ...]:
        """The free sympy symbols, such as beta, sorted by name."""
        ...

    @property
    def kept(self) -> tuple[str, ...]:
        """The names of the optimizer states that are variables of the flow, as in optax."""
        ...

    def equation(self, order: Count) -> Equation:
        """The modified equation with terms up to h^order."""
        ...

    def memory(self) -> Memory:
        """How far back gradients enter a step; raises `ValueError` if symbols are open."""
        ...

    def response(self) -> LinearResponse | None:
        """How the method acts on one mode of a quadratic, or None where that has no meaning."""
        ...


def is_method(value: Any) -> bool:
    """Whether a value satisfies the protocol `Method`, of whatever kind it is."""
    return isinstance(value, Method)


def require_method(value: Any) -> Method:
    """Returns `value`, checked to be a method.

    Raises:
      TypeError: if `value` is not a method.
    """
    if not is_method(value):
        raise TypeError(
            f"method must be one of igr.methods, such as gradient_descent(); got {value!r}."
        )
    return value


@runtime_checkable
class Equation(Protocol):
    """What any modified equation answers: theta' = F_0 + h F_1 + .., truncated after h^order.

    Every kind has the same signatures and errors. Questions that an equation cannot answer raise:
    `NotAGradientError` where a loss is asked for and none exists, `UnansweredError` for the rest.
    """

    @property
    def name(self) -> str:
        """The name of the method, or of the part of its equation, such as "gradient part"."""
        ...

    @property
    def order(self) -> int:
        """The highest power of h kept."""
        ...

    @property
    def parameters(self) -> tuple[sympy.Symbol, ...]:
        """The free sympy symbols, such as beta, sorted by name."""
        ...

    @property
    def kept(self) -> tuple[str, ...]:
        """The names of the optimizer states that are variables of the flow."""
        ...

    def truncate(self, order: Count) -> Equation:
        """The same equation with the terms up to h^order alone."""
        ...

    def subs(self, values: Mapping[Any, Any]) -> Equation:
        """The equation with numbers, or other expressions, in place of its symbols."""
        ...

    def is_gradient(self, order: Count | None = None) -> bool:
        """Whether the field, up to h^order, is a gradient for every loss."""
        ...

    def modified_loss(self, order: Count | None = None) -> Any:
        """The modified loss, whose gradient flow the equation is.

        Raises:
          NotAGradientError: if there is none.
        """
        ...

    def gradient_part(self) -> Equation:
        """The part of the field that is a gradient for every loss."""
        ...

    def obstruction(self) -> Equation:
        """The rest of the field: the equation less its `gradient_part`."""
        ...

    def on(self, loss: Any, params: Any, h: Any) -> Any:
        """The field in closed form on a loss given as a sympy expression, as a sympy Matrix."""
        ...

    def latex(self) -> str:
        """The equation as LaTeX."""
        ...


class UnansweredError(TypeError, ValueError):
    """Raised when an equation is asked for what its kind cannot answer; the message says why."""
