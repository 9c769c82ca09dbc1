"""What everything between a method and a picture speaks to: a method and its equation.

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
    """What a method remembers apart from the states it keeps as variables.

    Attributes:
      fading: the factor by which the slowest memory fades in a step, in [0, 1): beta for momentum,
        0 for a method without memory or whose memory ends after finitely many steps.
      steps: how many steps back a gradient still has a weight of its own, fading ones not counted.
    """

    fading: float = 0.0
    steps: int = 0


@runtime_checkable
class LinearResponse(Protocol):
    """What a method does to one mode of a quadratic, x = h times the curvature.

    Where the method preconditions, the curvature is that of the preconditioned Hessian.
    """

    def stability_limit(self) -> float:
        """The largest x at which the method does not diverge."""
        ...

    def convergence_radius(self) -> float:
        """The x up to which the expansion in h converges."""
        ...


@runtime_checkable
class Method(Protocol):
    """An optimizer: its memory and its rule."""

    @property
    def name(self) -> str:
        """How it calls itself in print and in errors."""
        ...

    @property
    def parameters(self) -> tuple[sympy.Symbol, ...]:
        """The symbols left open, sorted by name."""
        ...

    @property
    def kept(self) -> tuple[str, ...]:
        """The names of the states that stay variables of the flow, as they stand in optax."""
        ...

    def equation(self, order: Count) -> Equation:
        """The modified equation, to h^order."""
        ...

    def memory(self) -> Memory:
        """What it remembers; a `ValueError` where symbols are open."""
        ...

    def response(self) -> LinearResponse | None:
        """What it does to one mode of a quadratic, or None where that has no meaning."""
        ...


def is_method(value: Any) -> bool:
    """Whether a value answers what a method answers, of whatever kind it is."""
    return isinstance(value, Method)


def require_method(value: Any) -> Method:
    """The method itself.

    Raises:
      TypeError: if it is none.
    """
    if not is_method(value):
        raise TypeError(
            f"method must be one of igr.methods, such as gradient_descent(); got {value!r}."
        )
    return value


@runtime_checkable
class Equation(Protocol):
    """What any modified equation answers: theta' = F_0 + h F_1 + ..., truncated after h^order.

    Every kind has the same signatures and errors. What an equation cannot answer it refuses:
    `NotAGradientError` where a loss is asked for and none exists, `UnansweredError` for the rest.
    """

    @property
    def name(self) -> str:
        """The method, or the part of a method's equation."""
        ...

    @property
    def order(self) -> int:
        """The highest power of h kept."""
        ...

    @property
    def parameters(self) -> tuple[sympy.Symbol, ...]:
        """The symbols left open, sorted by name."""
        ...

    @property
    def kept(self) -> tuple[str, ...]:
        """The names of the states that stay variables of the flow."""
        ...

    def truncate(self, order: Count) -> Equation:
        """The same equation with fewer powers of h."""
        ...

    def subs(self, values: Mapping[Any, Any]) -> Equation:
        """The equation with numbers, or other expressions, for its symbols."""
        ...

    def is_gradient(self, order: Count | None = None) -> bool:
        """Whether the field, up to h^order, is a gradient for every loss."""
        ...

    def modified_loss(self, order: Count | None = None) -> Any:
        """The loss whose gradient flow this is; `NotAGradientError` if there is none."""
        ...

    def gradient_part(self) -> Equation:
        """The part of the field that is a gradient for every loss."""
        ...

    def obstruction(self) -> Equation:
        """What `gradient_part` leaves."""
        ...

    def on(self, loss: Any, params: Any, h: Any) -> Any:
        """The field in closed form on a loss given as a sympy expression."""
        ...

    def latex(self) -> str:
        """The equation as LaTeX."""
        ...


class UnansweredError(TypeError, ValueError):
    """An equation was asked for what its kind cannot answer; the message says why."""
