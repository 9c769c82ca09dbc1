"""Which methods have a central flow: gradient descent and RMSProp, however they are described."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import sympy

from igr.backward_error.methods.linear import LinearMethod
from igr.backward_error.protocols import Method
from igr.backward_error.terms.algebra import G
from igr.backward_error.terms.elementwise import ElementwiseMethod


def central_rule(method: Method) -> dict[str, float]:
    """What `central_flow` takes for a method: nothing, or RMSProp's `decay` and `eps`.

    Raises:
      ValueError: for a method without a central flow.
    """
    rule = _rule(method)
    if rule is None:
        raise ValueError(
            "'central' is for gradient descent, and for RMSProp with eps inside its root; got "
            f"{method.name}."
        )
    return rule


@singledispatch
def _rule(method: Any) -> dict[str, float] | None:
    return None


@_rule.register
def _(method: LinearMethod) -> dict[str, float] | None:
    plain = method.transfer == 1 and method.weight_decay == 0 and method.rho == 0
    return {} if plain else None


@_rule.register
def _(method: ElementwiseMethod) -> dict[str, float] | None:
    """Of g/sqrt(nu + eps) with one average nu of g^2, kept or not."""
    parts = [*method.channels, *method.states]
    if len(parts) != 1 or method.rates or parts[0][1].of != G**2:
        return None
    name, part = parts[0]
    eps = sympy.simplify((G / method.rule) ** 2 - name)
    if eps.free_symbols or not eps.is_nonnegative or method.rule != G / sympy.sqrt(name + eps):
        return None
    rate = getattr(part, "rate", None)
    decay = method.memory().fading if rate is None else 1 - rate
    return {"decay": float(decay), "eps": float(eps)}
