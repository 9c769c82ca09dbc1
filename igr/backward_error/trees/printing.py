"""Equations and losses as text and LaTeX, in g, H and nabla^k E[., .]."""

from __future__ import annotations

import re
from collections.abc import Mapping

import sympy

from igr.backward_error import trees
from igr.backward_error.trees.gradient import PLAIN, Gradient
from igr.backward_error.trees.rooted import Tree
from igr.backward_error.trees.series import by_power

_SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
_GREEK = {
    **{"alpha": "α", "beta": "β", "gamma": "γ", "epsilon": "ε", "theta": "θ", "kappa": "κ"},
    **{"lambda": "λ", "mu": "μ", "nu": "ν", "rho": "ρ", "sigma": "σ"},
}


def differential(tree: Tree, latex: bool = False) -> str:
    """The elementary differential of a tree over g = grad E.

    >>> differential((((),),))
    'H² g'
    >>> differential(((), ((),)))
    '∇³E[g, H g]'
    """
    hessians = 0
    while len(tree) == 1:
        hessians, tree = hessians + 1, tree[0]
    inner = "g" if not tree else _tensor(tree, len(tree) + 1, latex)
    if not hessians:
        return inner
    return f"H{_power(hessians, latex)} {inner}"


def contraction(tree: Tree, latex: bool = False) -> str:
    """The scalar that the derivatives of E make when contracted over a free tree.

    >>> contraction(((),)), contraction(((), ()))
    ('|g|²', 'gᵀH g')
    """
    if not tree:
        return "E"
    length = trees.order(tree)
    if _is_path(tree):
        if length == 2:
            return r"\lvert g\rvert^{2}" if latex else "|g|²"
        transposed = "g^{\\top}" if latex else "gᵀ"
        return f"{transposed}H{_power(length - 2, latex)} g"
    return _tensor(tree, len(tree), latex)


def plain(expression: sympy.Expr) -> str:
    """A sympy expression on one line, as one would write it by hand.

    >>> beta, x = sympy.symbols("beta x")
    >>> plain(2 * beta * x**2 - x**beta)
    '2 β x² - x^β'
    """
    text = str(expression)
    for name, letter in _GREEK.items():
        text = re.sub(rf"(?<![A-Za-z]){name}(?![A-Za-z])", letter, text)
    text = re.sub(r"\*\*(\d+)", lambda m: m[1].translate(_SUPERSCRIPTS), text)
    return text.replace("**", "^").replace("*", " ")


def equation(
    coefficients: Mapping[Tree, sympy.Expr], order: int, latex: bool, gradient: Gradient = PLAIN
) -> str:
    """theta' = ..., one group of terms for each power of h."""
    terms = [
        # F(t) is over f = -g: a sign for every vertex.
        (power, (-1) ** trees.order(t) * c, differential(t, latex))
        for power, group in by_power(coefficients)
        for t, c in group
    ]
    left = r"\dot\theta" if latex else "θ'"
    return f"{left} = {expansion(terms, order, latex)}{_meaning(gradient, latex)}"


def loss(
    coefficients: Mapping[Tree, sympy.Expr], order: int, latex: bool, gradient: Gradient = PLAIN
) -> str:
    """E + h ..., one group of terms for each power of h."""
    terms = [
        (power, c, contraction(t, latex))
        for power, group in by_power(coefficients)
        for t, c in group
    ]
    return f"{expansion(terms, order, latex)}{_meaning(gradient, latex)}"


def _meaning(gradient: Gradient, latex: bool) -> str:
    """What E, or g, stands for where it is not the loss itself and its gradient."""
    said = []
    if gradient.decay != 0:
        square = r"\lvert\theta\rvert^{2}" if latex else "|θ|²"
        term = _single(gradient.decay / 2, square, 0, latex)
        said.append(f"E + {term}" + (r" \text{ for } " if latex else " for ") + "E")
    if gradient.displaced:
        rho = _single(gradient.rho, "", 0, latex).strip()
        where = r"\nabla E" if latex else "∇E"
        length = rf" / \lvert {where}\rvert" if latex else f"/|{where}|"
        uphill = f"{rho} {where}{length if gradient.normalized else ''}"
        said.append(
            rf"g(\theta) = {where}(\theta + {uphill})" if latex else f"g(θ) = {where}(θ + {uphill})"
        )
    with_ = r" \text{ with } " if latex else ", with "
    return "".join(with_ + text for text in said)


def expansion(terms: list[tuple[int, sympy.Expr, str]], order: int, latex: bool) -> str:
    """Terms (power of h, coefficient, name), one group for each power of h."""
    written = ""
    for power in range(order + 1):
        group = [(c, name) for p, c, name in terms if p == power]
        if not group:
            continue
        negative = _is_negative(group[0][0])
        if negative:
            group = [(-c, name) for c, name in group]
        if len(group) == 1:
            body = _single(*group[0], power, latex)
        else:
            inside = ""
            for c, name in group:
                below = _is_negative(c)
                text = _single(-c if below else c, name, 0, latex)
                inside += (" - " if below else " + ") + text if inside else text
            h = _step(power, latex)
            left, right = (r"\left(", r"\right)") if latex else ("(", ")")
            bare = not h and not negative
            body = inside if bare else f"{h} {left}{inside}{right}".strip()
        if written:
            written += f" {'-' if negative else '+'} {body}"
        else:
            written = f"-{body}" if negative else body
    rest = f"O({_step(order + 1, latex)})"
    return f"{written or '0'} + {rest}"


def _single(c: sympy.Expr, name: str, power: int, latex: bool) -> str:
    """c h^power name, with h in the numerator; c is positive unless its sign cannot be told."""
    (top_number, tops), (bottom_number, bottoms) = (
        _factors(part) for part in sympy.fraction(sympy.factor(c))
    )
    number = top_number / bottom_number
    top = [str(number.p)] if number.p not in (1, -1) else []
    if number.p == -1:
        top = ["(-1)"]
    bottom = [str(number.q)] if number.q != 1 else []
    h = _step(power, latex)
    top += [h] if h else []
    # Only the braces of \frac make a lone sum's own parentheses superfluous.
    braced = latex and bool(bottom or bottoms)
    bare_top, bare_bottom = (
        braced and not n and len(f) == 1 for n, f in ((top, tops), (bottom, bottoms))
    )
    top += [_factor(f, k, latex, bare_top) for f, k in tops]
    bottom += [_factor(f, k, latex, bare_bottom) for f, k in bottoms]
    over, under = " ".join(top), " ".join(bottom)
    if not under:
        return f"{over} {name}".strip()
    if latex:
        return rf"\frac{{{over or 1}}}{{{under}}} {name}"
    if len(bottom) > 1:
        under = f"({under})"
    return f"{over or 1}/{under} {name}"


def _factors(part: sympy.Expr) -> tuple[sympy.Expr, list[tuple[sympy.Expr, int]]]:
    """A number, and the factors, turned so as to be positive for a beta in (0, 1)."""
    number, factors = sympy.factor_list(part)
    turned = []
    for factor, k in factors:
        if _is_negative(factor):
            factor, number = -factor, number * (-1) ** k
        turned.append((factor, k))
    if not number.is_Rational:  # a root, such as sqrt(2): only a number and its sign stay apart
        sign = -1 if _is_negative(number) else 1
        turned.insert(0, (sign * number, 1))
        number = sympy.Integer(sign)
    # Lone letters stand before sums.
    return number, sorted(turned, key=lambda f: isinstance(f[0], sympy.Add))


def _factor(factor: sympy.Expr, k: int, latex: bool, bare: bool) -> str:
    text = sympy.latex(factor) if latex else plain(factor)
    if isinstance(factor, sympy.Add) and not (bare and k == 1):
        text = rf"\left({text}\right)" if latex else f"({text})"
    return text + _power(k, latex)


def _is_negative(c: sympy.Expr) -> bool:
    """The sign where the symbols are in (0, 1), as a momentum is: at the first point that tells."""
    symbols = sorted(c.free_symbols, key=str)
    for k in (3, 5, 7, 11):
        value = c.subs({s: sympy.Rational(1, k + i) for i, s in enumerate(symbols)})
        if value.is_negative or value.is_positive:
            return bool(value.is_negative)
    return bool(c.could_extract_minus_sign())


def _tensor(tree: Tree, degree: int, latex: bool) -> str:
    inside = ", ".join(differential(child, latex) for child in tree)
    if degree == 1:
        inside = differential(tree[0], latex)
        return (rf"g^{{\top}} {inside}") if latex else f"gᵀ {inside}"
    name = rf"\nabla^{{{degree}}} E" if latex else f"∇{str(degree).translate(_SUPERSCRIPTS)}E"
    return f"{name}[{inside}]"


def _step(power: int, latex: bool) -> str:
    if power == 0:
        return ""
    return f"h{_power(power, latex)}"


def superscript(number: int) -> str:
    """The digits raised."""
    return str(number).translate(_SUPERSCRIPTS)


def _power(power: int, latex: bool) -> str:
    if power == 1:
        return ""
    return f"^{{{power}}}" if latex else str(power).translate(_SUPERSCRIPTS)


def _is_path(tree: Tree) -> bool:
    arms = len(tree) <= 2
    while arms and tree:
        if any(len(child) > 1 for child in tree):
            return False
        tree = tuple(grandchild for child in tree for grandchild in child)
    return arms
