"""The equation of a rule as text and LaTeX: Psi is the rule, J its derivative."""

from __future__ import annotations

from typing import Any

import sympy

from igr.backward_error.algebra.taylor import taylor_coefficients
from igr.backward_error.algebra.tex import tex
from igr.backward_error.trees.printing import plain

_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
_SUBSCRIPTS = "₀₁₂₃₄₅₆₇₈₉"


def equation(eq: Any, latex: bool) -> str:
    """The equation theta' = F_0 + h F_1 + .. as text, with F_0 and F_1 written out.

    Args:
      eq: a `RuleEquation`.
      latex: LaTeX instead of unicode.
    """
    method = eq.method
    psi = r"\Psi" if latex else "Ψ"
    reads = method.psi.names
    channels = [(a, c) for a, c in method.channels if a in reads]
    if not channels and "g" in reads:
        channels = [("g", None)]
    terms = " + ".join(_power(k, latex) for k in range(eq.order + 1))
    rest = _order(eq.order + 1, latex)
    left = r"\dot\theta" if latex else "θ'"
    shown = ", ".join(_name(n, latex) for n in reads if n not in ("value_fn", "h"))
    said = [f"{_field(0, latex)} = -{psi}({shown})"]
    held = [
        f"{_name(a, latex)} = {_times(_weights(c)[0], _of(a, c, latex), latex)}"
        for a, c in channels
        if c is not None
    ]
    said += held
    if eq.order > 0:
        said.append(f"{_field(1, latex)} = {_first(method, channels, latex)}")
    and_ = r" \text{ and } " if latex else ", and "
    lines = ", ".join(said[:-1]) + and_ + said[-1] if len(said) > 1 else said[0]
    if eq.order > 1:
        further = "those beyond" if eq.order > 2 else _field(2, latex)
        lines += (
            rf"; {further} \text{{ by Taylor mode}}" if latex else f"; {further} by Taylor mode"
        )
    joined = r", \quad \text{with } " if latex else ", with "
    return f"{left} = {terms} + {rest}{joined}{lines}"


def _first(method: Any, channels: list[tuple[str, Any]], latex: bool) -> str:
    """The text of F_1: the derivatives of Psi along all that it reads."""
    f0 = _field(0, latex)
    reads = method.psi.names
    inside = {n for _, c in method.channels if c.of is not None for n in c.of.names}
    if inside - {"g", "theta", "value_fn", "h"}:
        return r"\text{.. by Taylor mode}" if latex else ".. by Taylor mode"
    alone = len(channels) == 1 and not set(reads) - {channels[0][0]}
    terms: list[tuple[sympy.Expr, str]] = []
    for a, c in channels:
        w0, w1 = _weights(c)
        along = _jacobian(None if alone else a, latex)
        plain_gradient = c is None or c.of is None
        inner = f"H {f0}" if plain_gradient else f"{_phi(a, latex)}'[{f0}]"
        terms.append((sympy.factor(w0 / 2 - w1), f"{along} {inner}"))
    half = sympy.Rational(1, 2)
    if "g" in reads and all(a != "g" for a, _ in channels):
        terms.append((half, f"{_jacobian('g', latex)} H {f0}"))
    if "theta" in reads:
        terms.append((half, f"{_jacobian('theta', latex)} {f0}"))
    for y, _ in method.states:
        if y in reads:
            slope = rf"\dot{{{_name(y, latex)}}}" if latex else f"{y}'"
            terms.append((-half, f"{_jacobian(y, latex)} {slope}"))
    if "t" in reads:
        terms.append((-half, r"\partial_t \Psi" if latex else "∂Ψ/∂t"))
    written = ""
    for c, what in terms:
        if c == 0:
            continue
        negative = c.could_extract_minus_sign()
        sign = ("-" if negative else "") if not written else (" - " if negative else " + ")
        written += sign + _times(-c if negative else c, what, latex)
    return written or "0"


def _weights(channel: Any) -> list[sympy.Expr]:
    if channel is None:
        return [sympy.Integer(1), sympy.Integer(0)]
    return [sympy.factor(w) for w in taylor_coefficients(channel.transfer, 2)]


def _of(a: str, channel: Any, latex: bool) -> str:
    return "g" if channel.of is None else _phi(a, latex)


def _phi(a: str, latex: bool) -> str:
    return rf"\phi_{{{_name(a, latex)}}}" if latex else f"φ_{a}"


def _times(c: sympy.Expr, what: str, latex: bool) -> str:
    if c == 1:
        return what
    text = tex(c) if latex else plain(c)
    if not latex and c.is_Add:
        text = f"({text})"
    return f"{text} {what}"


def _jacobian(of: str | None, latex: bool) -> str:
    if latex:
        return r"J_{\Psi}" if of is None else rf"J_{{{_name(of, latex)}}}"
    return "J_Ψ" if of is None else f"J_{_name(of, latex)}"


def _name(n: str, latex: bool) -> str:
    if n == "theta":
        return r"\theta" if latex else "θ"
    return tex(sympy.Symbol(n)) if latex else n


def _field(k: int, latex: bool) -> str:
    return f"F_{{{k}}}" if latex else "F" + _SUBSCRIPTS[k]


def _power(k: int, latex: bool) -> str:
    return _field(k, latex) if k == 0 else f"{_h(k, latex)} {_field(k, latex)}"


def _order(k: int, latex: bool) -> str:
    return f"O({_h(k, latex)})"


def _h(k: int, latex: bool) -> str:
    if k == 1:
        return "h"
    return f"h^{{{k}}}" if latex else "h" + "".join(_SUPERSCRIPTS[int(d)] for d in str(k))
