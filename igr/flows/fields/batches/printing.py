"""The equation of an optimizer on random batches as text, where V_b is its step on batch b."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sympy
from jaxtyping import PyTree

from igr.backward_error.algebra.tex import tex
from igr.flows.fields.batches.remembered import Drawn, Weights


@dataclass(frozen=True, repr=False)
class BatchField:
    """A field `f(t, state, args)` that prints as its equation.

    Attributes:
      field: the function.
      text: the equation.
      formula: the same as LaTeX.
    """

    field: Callable[[Any, PyTree, Any], PyTree]
    text: str
    formula: str

    def __call__(self, t: Any, state: PyTree, args: Any = None) -> PyTree:
        """The time derivative of the state, a pytree like it."""
        return self.field(t, state, args)

    def latex(self) -> str:
        """The equation as LaTeX."""
        return self.formula

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<field: {self.text}>"

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.formula}$"


def equation(
    kept: tuple[str, ...], memories: Mapping[str, Weights], drawn: Drawn, m: int, order: int
) -> tuple[str, str]:
    """The equation as text and as LaTeX.

    Args:
      kept: the names of the kept states.
      memories: the weights of each eliminated memory, by name.
      drawn: how batches are drawn.
      m: the number of batches.
      order: 0 or 1.
    """
    return (
        _printed(_Text(), kept, memories, drawn, m, order),
        _printed(_Latex(), kept, memories, drawn, m, order),
    )


def mean_equation(
    kept: tuple[str, ...], channels: tuple[str, ...], drawn: Drawn, m: int, order: int
) -> tuple[str, str]:
    """The equation of a rule that is nonlinear in its memories, as text and as LaTeX.

    Args:
      kept: the names of the kept states.
      channels: the names of the eliminated memories.
      drawn: how batches are drawn.
      m: the number of batches.
      order: 0 or 1.
    """
    return (
        _averaged(_Text(), kept, channels, drawn, m, order),
        _averaged(_Latex(), kept, channels, drawn, m, order),
    )


def _averaged(
    s: _Text, kept: Any, channels: tuple[str, ...], drawn: Drawn, m: int, order: int
) -> str:
    of = f"V({', '.join(map(s.name, channels))})" if channels else "V"
    lines = [f"x = {_slow(s, kept)}", f"M = {s.mean(of)}"]
    if order:
        lag = s.mean(f"V_{s.sub('k')}'[k M]")
        met = s.mean(f"V_{s.sub('k')}'[{s.later('V', 'j')} - M]")
        lines.append(f"F_1 = -{s.half('1')} M' M - {s.total('k')} {lag} + {s.total('j > k')} {met}")
        lines.append(s.words("V_k' the derivative by the x that was seen k steps before"))
        lines.append(f"{s.later('V', 'j')}{s.words(' the step of j steps before')}")
    lines.append(s.words(f"means over sequences of {_drawn_as(drawn, m)}"))
    if order == 0:
        return s.sentence(f"{s.dot('x')} = M + O(h)", lines)
    return s.sentence(f"{s.dot('x')} = M + h F_1 + O({s.h2})", lines)


def _slow(s: _Text, kept: Any) -> str:
    return s.name("theta") if not kept else f"({', '.join(map(s.name, ('theta', *kept)))})"


def _drawn_as(drawn: Drawn, m: int) -> str:
    return f"{m} batches, each {'drawn anew' if not drawn.own else 'once an epoch'}"


def _printed(
    s: _Text, kept: Any, memories: Mapping[str, Weights], drawn: Drawn, m: int, order: int
) -> str:
    read = f"({', '.join(map(s.name, memories))})" if memories else ""
    of = f"{s.of_batch('V')}{read}"
    lines = [f"x = {_slow(s, kept)}"]
    for a, w in memories.items():
        own = s.times(w.now(drawn) - w.total, s.apart(s.phi(a)))
        both = s.joined([s.times(w.total, s.phi(a)), own])
        lines.append(f"{s.name(a)} = {both}")
    lines.append(s.words(f"b one of {_drawn_as(drawn, m)}"))
    if order == 0:
        return s.sentence(f"{s.dot('x')} = {s.mean(of)} + O(h)", lines)
    if not memories:
        bent = s.mean(f"{of}' {of}") if drawn.own else f"{s.mean(of)}' {s.mean(of)}"
        return s.sentence(f"{s.dot('x')} = {s.mean(of)} - {s.half('h')} {bent} + O({s.h2})", lines)
    lines.insert(1, f"M = {s.mean(of)}")
    first = [f"-{s.half('1')} M' M"]
    moved, turned = [s.times(drawn.own, s.apart(of))], []
    for a, w in memories.items():
        slope = f"L_{s.sub(a)}"
        first.append(s.times(w.first, f"{slope} {s.mean(s.phi(a) + chr(39))}[M]"))
        moved.append(s.times(w.moved(drawn), f"{slope} {s.apart(s.phi(a))}"))
        if drawn.own:
            first.append(s.times(w.total, f"{slope} {s.mean(s.phi(a) + chr(39) + '[u]')}"))
        first.append(s.mean(f"{slope}'[d_{s.sub(a)}] {s.apart(s.phi(a))}"))
        parts = [s.times(w.met(drawn), s.apart(of))]
        parts += [
            s.times(w.shared(v, drawn), f"L_{s.sub(k)} {s.apart(s.phi(k))}")
            for k, v in memories.items()
        ]
        turned.append(f"d_{s.sub(a)} = {s.joined(parts)}")
    if drawn.own:
        first.append(s.mean(f"{of}'[u]"))
        turned.insert(0, f"u = {s.joined(moved)}")
    turned.append(s.words("L the derivative of V by a memory, ~ apart from the mean"))
    lines[2:2] = [f"F_1 = {s.joined(first)}", *turned]
    return s.sentence(f"{s.dot('x')} = M + h F_1 + O({s.h2})", lines)


class _Text:
    """The parts of an equation in plain text."""

    h2 = "h²"

    def name(self, n: str) -> str:
        return "θ" if n == "theta" else n

    def sub(self, n: str) -> str:
        return n

    def phi(self, a: str) -> str:
        return f"φ_{a},b"

    def of_batch(self, what: str) -> str:
        return f"{what}_b"

    def mean(self, what: str) -> str:
        return f"⟨{what}⟩"

    def apart(self, what: str) -> str:
        return f"~{what}"

    def total(self, over: str) -> str:
        return f"Σ_({over})"

    def later(self, what: str, j: str) -> str:
        return f"{what}(-{j})"

    def dot(self, what: str) -> str:
        return f"{what}'"

    def half(self, what: str) -> str:
        return f"{what}/2"

    def words(self, what: str) -> str:
        return what

    def number(self, c: float) -> str:
        return f"{c:.6g}"

    def times(self, c: float, what: str) -> str:
        if abs(c) < 1e-12:
            return ""
        return what if c == 1 else f"-{what}" if c == -1 else f"{self.number(c)} {what}"

    def joined(self, terms: list[str]) -> str:
        found = ""
        for term in filter(None, terms):
            minus = term.startswith("-")
            sign = (" - " if minus else " + ") if found else ("-" if minus else "")
            found += sign + term.removeprefix("-")
        return found or "0"

    def sentence(self, left: str, lines: list[str]) -> str:
        return f"{left}, with {', '.join(lines)}"


class _Latex(_Text):
    """The parts of an equation in LaTeX."""

    h2 = "h^2"

    def name(self, n: str) -> str:
        return r"\theta" if n == "theta" else tex(sympy.Symbol(n))

    def sub(self, n: str) -> str:
        return f"{{{self.name(n)}}}"

    def phi(self, a: str) -> str:
        return rf"\phi_{{{self.name(a)}, b}}"

    def mean(self, what: str) -> str:
        return rf"\langle {what} \rangle"

    def apart(self, what: str) -> str:
        return rf"\tilde{{{what}}}"

    def total(self, over: str) -> str:
        return rf"\sum_{{{over}}}"

    def later(self, what: str, j: str) -> str:
        return f"{what}_{{-{j}}}"

    def dot(self, what: str) -> str:
        return rf"\dot {what}"

    def half(self, what: str) -> str:
        return rf"\frac{{{what}}}{{2}}"

    def words(self, what: str) -> str:
        return rf"\text{{{what.replace('~', 'the tilde for what is')}}}"

    def number(self, c: float) -> str:
        found = f"{c:.6g}"
        digits, e, power = found.partition("e")
        return rf"{digits} \cdot 10^{{{int(power)}}}" if e else found

    def sentence(self, left: str, lines: list[str]) -> str:
        return rf"{left}, \quad \text{{with }} " + r",\; ".join(lines)
