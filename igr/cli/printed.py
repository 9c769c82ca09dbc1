"""The output of `igr derive` in each of its formats."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import sympy

from igr.backward_error.algebra.tex import tex
from igr.backward_error.trees.printing import plain
from igr.cli.refusal import BadInput

STEP = sympy.Symbol("h")
_Loss = sympy.Expr | None
_Symbols = Sequence[sympy.Symbol]


def _unicode(equation: Any, modified: Any, loss: _Loss, params: _Symbols) -> Iterator[str]:
    yield str(equation)
    if loss is not None:
        yield from _components("{}' = {} + O({})", plain, equation, loss, params)
    if modified is not None:
        yield f"modified loss: {modified}"
    if loss is not None and modified is not None:
        closed = _ascending(modified.on(loss, params, STEP), plain)
        yield f"  = {closed} + O({plain(STEP ** (modified.order + 1))})"


def _latex(equation: Any, modified: Any, loss: _Loss, params: _Symbols) -> Iterator[str]:
    yield equation.latex()
    if loss is not None:
        line = r"\dot{{{}}} = {} + O({})"
        yield from _components(line, tex, equation, loss, params)
    if modified is not None:
        yield rf"\tilde{{E}} = {modified.latex()}"
    if loss is not None and modified is not None:
        closed = _ascending(modified.on(loss, params, STEP), tex)
        yield rf"\tilde{{E}} = {closed} + O({tex(STEP ** (modified.order + 1))})"


def _sympy(equation: Any, modified: Any, loss: _Loss, params: _Symbols) -> Iterator[str]:
    """Lines that `sympy.sympify` reads: coefficients by tree, or with a loss the closed forms.

    Spelled out by `srepr`, since sympy would read the name beta as its function of that name.
    """
    shown = [equation] if modified is None else [equation, modified]
    if loss is None and not all(hasattr(part, "coefficients") for part in shown):
        raise BadInput(f"--format sympy wants --loss for {equation.name}: its terms are no trees")
    for part in shown:
        yield sympy.srepr(part.coefficients if loss is None else part.on(loss, params, STEP))


def _components(
    line: str,
    show: Callable[[sympy.Basic], str],
    equation: Any,
    loss: sympy.Expr,
    params: _Symbols,
) -> Iterator[str]:
    rest = show(STEP ** (equation.order + 1))
    for p, component in zip(params, equation.on(loss, params, STEP), strict=True):
        yield line.format(show(p), _ascending(component, show), rest)


def _ascending(expression: sympy.Expr, show: Callable[[sympy.Basic], str]) -> str:
    """A sum as text in rising powers of the step, which sympy would sort by name."""
    terms = sorted(
        sympy.Add.make_args(expression), key=lambda term: term.as_coeff_exponent(STEP)[1]
    )
    first, *rest = map(show, terms)
    return first + "".join(
        f" - {term[1:].lstrip()}" if term.startswith("-") else f" + {term}" for term in rest
    )


FORMATS = {"unicode": _unicode, "latex": _latex, "sympy": _sympy}
