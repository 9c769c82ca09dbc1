"""Checks a loss given as a sympy expression, and the symbols of its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy

from igr.backward_error.algebra.taylor import exact


def check_loss(loss: Any, params: Any) -> tuple[sympy.Expr, tuple[sympy.Symbol, ...]]:
    """Returns the loss as an exact sympy expression and its parameters as a tuple of symbols.

    Args:
      loss: a number or a sympy expression.
      params: a sequence of sympy symbols.

    Raises:
      TypeError: if `loss` is no expression or `params` are no symbols.
      ValueError: if a symbol stands twice in `params`.
    """
    loss = exact(loss, "loss")
    symbols = tuple(params) if isinstance(params, Sequence) else ()
    if not symbols or not all(isinstance(p, sympy.Symbol) for p in symbols):
        raise TypeError(f"params must be a sequence of one or more sympy symbols; got {params!r}.")
    if len(set(symbols)) < len(symbols):
        raise ValueError(f"each of params must stand once; got {params!r}.")
    return loss, symbols
