"""Equations of the term algebra as text and LaTeX, in g, H, nabla^k E[., .] and named symbols."""

from __future__ import annotations

from typing import Any

import sympy

from igr.backward_error.algebra.tex import tex
from igr.backward_error.terms.algebra import THETA, G, T
from igr.backward_error.terms.certificate import SQUARE
from igr.backward_error.trees.printing import expansion, plain

_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def equation(eq: Any, latex: bool) -> str:
    """The equations of theta' and each kept state as text, and what their symbols stand for.

    Args:
      eq: an `ElementwiseEquation`.
      latex: LaTeX instead of unicode.
    """
    names = _Names(eq, latex)
    lines = [_line(r"\dot\theta" if latex else "θ'", eq.field, eq, names)]
    for y, part in eq.states.items():
        left = rf"\dot{{{tex(y)}}}" if latex else f"{plain(y)}'"
        lines.append(_line(left, part, eq, names))
    said = [f"{name} = {names.text(e)}" for e, name in names.directions()]
    h = sympy.Symbol("h")
    shown = set().union(*(e.free_symbols for part in (eq.field, *eq.states.values()) for e in part))
    said += [
        f"{names.text(h * kappa)} = {names.text(rate)}"
        for kappa, rate in eq.rates.items()
        if kappa in shown
    ]
    if said and latex:
        lines.append(r"\text{with } " + r", \quad ".join(said))
    elif said:
        lines[-1] += ", with " + ", ".join(said)
    if len(lines) == 1:
        return lines[0]
    if latex:
        return r"\begin{aligned} " + r" \\ ".join(lines) + r" \end{aligned}"
    return "\n".join(lines)


def preconditioned_loss(modified: Any, latex: bool) -> str:
    """The loss E + h sum psi, its metric and the weight decay beside it, as text.

    Args:
      modified: a `PreconditionedLoss`.
      latex: LaTeX instead of unicode.
    """
    vectors = {G, THETA, *modified.states}
    terms = [(0, sympy.Integer(1), "E")]
    for k, psi in enumerate(modified.parts.penalty):
        for term in sympy.Add.make_args(psi):
            c, summed = term.as_independent(*vectors, as_Add=False)
            if c != 0:
                terms.append(
                    (k, c, (r"\textstyle\sum " if latex else "Σ ") + _shown(summed, latex))
                )
    length = sympy.Symbol(r"{\lvert g\rvert}" if latex else "|g|", positive=True)
    for k, phi in enumerate(modified.parts.of_length):
        for term in sympy.Add.make_args(phi.xreplace({SQUARE: length**2})):
            c, power = term.as_independent(length, as_Add=False)
            if c != 0:
                terms.append((k, c, _shown(power, latex)))
    text = expansion(terms, modified.order, latex)
    metric = modified.parts.preconditioner[0]
    if metric != 1:
        inside = r" \text{ in the metric of } P = " if latex else ", in the metric of P = "
        text += f"{inside}{_shown(metric, latex)} + O(h)"
    decay = modified.parts.decay[0]
    if decay != 0:
        beside = r"\text{, and the decay } " if latex else ", and the decay "
        text += f"{beside}{_shown(-decay * THETA, latex)}"
    return text


def term(eq: Any, expression: sympy.Expr) -> str:
    """One term of an equation as plain text on one line.

    Args:
      eq: an `ElementwiseEquation`.
      expression: the term, of the equation's algebra.
    """
    names = _Names(eq, latex=False)
    text = names.text(expression)
    said = [f"{name} = {names.text(e)}" for e, name in names.directions()]
    return f"{text} ({', '.join(said)})" if said else text


def _shown(expression: sympy.Expr, latex: bool) -> str:
    return tex(expression) if latex else plain(expression)


def _line(left: str, coefficients: tuple[sympy.Expr, ...], eq: Any, names: _Names) -> str:
    latex = names.latex
    linear = [names.linear(c) for c in coefficients]
    terms = [(k, c, name) for k, group in enumerate(linear) for c, name in group or ()]
    if None not in linear:
        return f"{left} = {expansion(terms, eq.order, latex)}"
    written = ""
    for k, c in enumerate(coefficients):
        if c == 0:
            continue
        text = names.text(c)
        if k:
            power = (f"h^{{{k}}}" if latex else f"h{'²³⁴⁵⁶⁷⁸⁹'[k - 2]}") if k > 1 else "h"
            text = rf"{power} \left({text}\right)" if latex else f"{power} ({text})"
        written += f" + {text}" if written else text
    return f"{left} = {written or '0'} + {expansion([], eq.order, latex).partition(' + ')[2]}"


class _Names:
    """The printed names of an equation's symbols, and of vectors that are differentiated along."""

    def __init__(self, eq: Any, latex: bool):
        self.eq = eq
        self.latex = latex
        self._named: dict[sympy.Expr, str] = {}  # directions with a name of their own

    def directions(self) -> list[tuple[sympy.Expr, str]]:
        """The (vector, name) pairs of all vectors given a name so far, and of those inside them."""
        done = 0
        while done < len(self._named):  # writing one may name more
            for e in list(self._named)[done:]:
                self.text(e)
                done += 1
        return list(self._named.items())

    def text(self, expression: sympy.Expr) -> str:
        """The text of an elementwise expression."""
        symbols: dict[sympy.Basic, sympy.Expr] = {}
        for atom in sorted(expression.free_symbols, key=str):
            if atom in self.eq.contractions:
                symbols[atom] = sympy.Symbol(self.contraction(atom, brackets=True))
            elif atom in self.eq.products:
                symbols[atom] = self.product(atom)
        shown = expression.subs(symbols) if self.eq.products else expression.xreplace(symbols)
        if not self.latex:
            return plain(shown)
        return tex(shown.xreplace({THETA: sympy.Symbol(r"{\theta}")}))

    def contraction(self, atom: sympy.Symbol, brackets: bool = False) -> str:
        """The text of a contraction: H g, H² g, ∇³E[g, g], or H[s] for a named vector.

        With `brackets`, or where the vector has a name, H takes its argument in brackets.
        """
        vectors = self.eq.contractions[atom].vectors
        if len(vectors) > 1:
            inside = ", ".join(self.direction(v, brackets) for v in vectors)
            k = len(vectors) + 1
            return (
                rf"\nabla^{{{k}}} E[{inside}]" if self.latex else f"∇{'²³⁴⁵⁶⁷⁸⁹'[k - 2]}E[{inside}]"
            )
        times, inner = 1, vectors[0]
        below = self.eq.contractions.get(inner)
        while not brackets and below is not None and len(below.vectors) == 1:
            times, inner = times + 1, below.vectors[0]
            below = self.eq.contractions.get(inner)
        power = "" if times == 1 else f"^{{{times}}}" if self.latex else "²³⁴⁵⁶⁷⁸⁹"[times - 2]
        text = self.direction(inner, brackets)
        if brackets or not (inner in (G, THETA) or below is not None):
            return f"{{H{power}[{text}]}}" if self.latex else f"H{power}[{text}]"
        return f"H{power} {text}"

    def direction(self, vector: sympy.Expr, brackets: bool = False) -> str:
        """The text of a vector that is differentiated along: its formula or, if long, a name."""
        if vector in self.eq.contractions:
            return self.contraction(vector, brackets)
        if vector.is_Symbol:
            return self.text(vector)
        if vector not in self._named:
            n = len(self._named) + 1
            name = f"s_{{{n}}}" if self.latex else f"s{str(n).translate(_SUBSCRIPTS)}"
            self._named[vector] = name
        return self._named[vector]

    def product(self, atom: sympy.Symbol) -> sympy.Expr:
        """A symbol that prints as the inner product of two vectors: |g|², gᵀH g."""
        a, b = (self.direction(v) for v in sorted(self.eq.products[atom], key=lambda v: v != G))
        if a == b:
            bars = rf"{{\lvert {a}\rvert}}" if self.latex else f"|{a}|"
            return sympy.Symbol(bars, positive=True) ** 2
        return sympy.Symbol(rf"{{{a}^{{\top}} {b}}}" if self.latex else f"({a}ᵀ{b})")

    def linear(self, expression: sympy.Expr) -> list[tuple[sympy.Expr, str]] | None:
        """The (number, name of vector) pairs of a linear expression, or None if it is not one."""
        vectors = {G, THETA, *self.eq.states, *self.eq.contractions}
        numbers = {s: self.product(s) for s in self.eq.products}
        terms = []
        for term in sympy.Add.make_args(sympy.expand(expression)):
            if term == 0:
                continue
            present = [s for s in term.free_symbols if s in vectors]
            if len(present) != 1 or T in term.free_symbols:
                return None
            number = term / present[0]
            if number.free_symbols & vectors:
                return None
            atom = present[0]
            name = self.contraction(atom) if atom in self.eq.contractions else self.text(atom)
            terms.append((number, atom, name))
        collected: dict[str, sympy.Expr] = {}
        for number, _, name in sorted(terms, key=lambda term: (term[1] != G, term[2])):
            collected[name] = collected.get(name, sympy.Integer(0)) + number
        return [(c.subs(numbers), name) for name, c in collected.items()]
