"""Equations and losses over trees as text and LaTeX, in g, H and nabla^k E[., .]."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby

import sympy
from sympy.printing.precedence import PRECEDENCE
from sympy.printing.str import StrPrinter

from igr.backward_error.algebra.tex import small_power_of_ten, tex
from igr.backward_error.trees.colouring import Colouring, Letters, superscript
from igr.backward_error.trees.powers import by_power
from igr.backward_error.trees.rooted import Tree, order

_ONE_LOSS = Colouring()
_GREEK = {
    **{"alpha": "α", "beta": "β", "gamma": "γ", "epsilon": "ε", "theta": "θ", "kappa": "κ"},
    **{"lambda": "λ", "mu": "μ", "nu": "ν", "rho": "ρ", "sigma": "σ"},
}


def equation(
    coefficients: Mapping[Tree, sympy.Expr], upto: int, latex: bool, over: Colouring
) -> str:
    """The text of theta' = .., with the terms of each power of h in one group."""
    rows = [
        f"{left} = {expansion(field_terms(coefficients, latex, over, root), upto, latex)}"
        for left, root in over.rows(latex)
    ]
    if len(rows) > 1 and latex:
        return r"\begin{aligned} " + r" \\ ".join(rows) + r" \end{aligned}"
    return "\n".join(rows) + _meaning(over, latex)


def loss(coefficients: Mapping[Tree, sympy.Expr], upto: int, latex: bool, over: Colouring) -> str:
    """The text of E + h .., with the terms of each power of h in one group."""
    terms = [
        (power, c, contraction(tree, latex, over))
        for power, group in by_power(coefficients)
        for tree, c in group
    ]
    return expansion(terms, upto, latex) + _meaning(over, latex)


def field_terms(
    coefficients: Mapping[Tree, sympy.Expr],
    latex: bool,
    over: Colouring,
    root: int | None = None,
) -> list[tuple[int, sympy.Expr, str]]:
    """The terms of the field over g, as (power of h, coefficient, name) triples.

    `root` keeps only the trees whose root has that colour.
    """
    return [
        # F(t) is over f = -g: a sign for every vertex.
        (power, (-1) ** order(tree) * c, differential(tree, latex, over))
        for power, group in by_power(coefficients)
        for tree, c in group
        if root is None or tree[0] == root
    ]


def differential(tree: Tree, latex: bool = False, over: Colouring = _ONE_LOSS) -> str:
    """The text of a tree's elementary differential over g = grad E.

    >>> differential((((),),))
    'H² g'
    >>> differential(((), ((),)))
    '∇³E[g, H g]'
    """
    letters = over.letters(tree, latex)
    return letters.before + _applied(tree, letters, over.powers, 1) + letters.after


def contraction(tree: Tree, latex: bool = False, over: Colouring = _ONE_LOSS) -> str:
    """The text of the scalar contraction of E's derivatives over a free tree.

    >>> contraction(((),)), contraction(((), ()))
    ('|g|²', 'gᵀH g')
    """
    letters = over.letters(tree, latex)
    return letters.before + _contracted(tree, letters, over.powers) + letters.after


def plain(expression: sympy.Expr) -> str:
    """A sympy expression as text on one line, as one would write it by hand.

    >>> beta, x = sympy.symbols("beta x")
    >>> plain(2 * beta * x**2 - x**beta)
    '2 β x² - x^β'
    >>> plain(x / (sympy.sqrt(x**2) + sympy.Rational(1, 10**8)))
    'x/(|x| + 10⁻⁸)'
    """
    return _ByHand().doprint(expression)


class _ByHand(StrPrinter):
    """The printer behind `plain`: Greek letters, superscripts, and a space for a product."""

    def _print_Symbol(self, expr: sympy.Symbol) -> str:
        words = ("".join(part) for _, part in groupby(expr.name, _latin))
        return "".join(_GREEK.get(word, word) for word in words)

    def _print_Pow(self, expr: sympy.Pow, rational: bool = False) -> str:
        base, exponent = expr.as_base_exp()
        if abs(exponent) == sympy.Rational(1, 2) and base.is_Pow and base.exp == 2:
            length = f"|{self._print(base.base)}|"
            return length if exponent > 0 else f"1/{length}"
        if exponent.is_Rational and ((exponent.q == 2 and abs(exponent.p) == 1) or exponent == -1):
            return super()._print_Pow(expr, rational)  # a root, or one over
        below, above = (
            self.parenthesize(part, PRECEDENCE["Pow"], strict=False) for part in (base, exponent)
        )
        if exponent.is_Integer and exponent > 0:
            return below + superscript(int(exponent))
        return f"{below}^{above}"

    def _print_Rational(self, expr: sympy.Rational) -> str:
        power = small_power_of_ten(expr)  # as an epsilon is
        return super()._print_Rational(expr) if power is None else f"10⁻{superscript(power)}"

    def _print_Mul(self, expr: sympy.Mul) -> str:
        over, under = [], []
        for factor in expr.as_ordered_factors():
            if factor.is_Rational:
                over += [sympy.Integer(abs(factor.p))] if abs(factor.p) != 1 else []
                under += [sympy.Integer(factor.q)] if factor.q != 1 else []
            elif factor.is_Pow and factor.exp.is_Rational and factor.exp.is_negative:
                under.append(factor.base**-factor.exp)
            else:
                over.append(factor)
        top, bottom = (
            " ".join(self.parenthesize(x, PRECEDENCE["Mul"], strict=False) for x in part)
            for part in (over, under)
        )
        bottom = f"({bottom})" if len(under) > 1 else bottom
        sign = "-" if expr.as_coeff_Mul()[0].is_negative else ""
        return sign + (f"{top or 1}/{bottom}" if under else top)


def _latin(letter: str) -> bool:
    return letter.isascii() and letter.isalpha()


def _meaning(over: Colouring, latex: bool) -> str:
    return "".join((r" \text{ with } " if latex else ", with ") + m for m in over.meaning(latex))


def expansion(terms: list[tuple[int, sympy.Expr, str]], upto: int, latex: bool) -> str:
    """The text of a series, with the terms of each power of h in one group, and its remainder."""
    return f"{summed(terms, upto, latex)} + {remainder(upto, latex)}"


def remainder(upto: int, latex: bool) -> str:
    """The text O(h^(upto + 1))."""
    return f"O({_step(upto + 1, latex)})"


def summed(terms: list[tuple[int, sympy.Expr, str]], upto: int, latex: bool) -> str:
    """The text of a series, with the terms of each power of h in one group, without remainder."""
    written = ""
    for power in range(upto + 1):
        group = [(c, name) for p, c, name in terms if p == power]
        if not group:
            continue
        negative = _is_negative(group[0][0])
        if negative:
            group = [(-c, name) for c, name in group]
        if len(group) == 1:
            body = coefficient(*group[0], power, latex)
        else:
            inside = ""
            for c, name in group:
                below = _is_negative(c)
                text = coefficient(-c if below else c, name, 0, latex)
                inside += (" - " if below else " + ") + text if inside else text
            h = _step(power, latex)
            left, right = (r"\left(", r"\right)") if latex else ("(", ")")
            bare = not h and not negative
            body = inside if bare else f"{h} {left}{inside}{right}".strip()
        if written:
            written += f" {'-' if negative else '+'} {body}"
        else:
            written = f"-{body}" if negative else body
    return written or "0"


def coefficient(c: sympy.Expr, name: str, power: int, latex: bool) -> str:
    """The text of c h^power name, with h in the numerator.

    c is positive unless its sign cannot be told.
    """
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
    """A number and the factors of an expression, signed so as to be positive for beta in (0, 1)."""
    number, factors = sympy.factor_list(part)
    turned = []
    for factor, k in factors:
        if _is_negative(factor):
            factor, number = -factor, number * (-1) ** k
        turned.append((factor, int(k)))
    if not number.is_Rational:  # a root, such as sqrt(2): only a number and its sign stay apart
        sign = -1 if _is_negative(number) else 1
        turned.insert(0, (sign * number, 1))
        number = sympy.Integer(sign)
    # Lone letters stand before sums.
    return number, sorted(turned, key=lambda f: isinstance(f[0], sympy.Add))


def _factor(factor: sympy.Expr, k: int, latex: bool, bare: bool) -> str:
    text = tex(factor) if latex else plain(factor)
    if isinstance(factor, sympy.Add) and not (bare and k == 1):
        text = rf"\left({text}\right)" if latex else f"({text})"
    return text + _power(k, latex)


def _is_negative(c: sympy.Expr) -> bool:
    """Whether c is negative for symbols in (0, 1), tested at the first point that decides it."""
    symbols = sorted(c.free_symbols, key=str)
    for k in (3, 5, 7, 11):
        value = c.subs({s: sympy.Rational(1, k + i) for i, s in enumerate(symbols)})
        if value.is_negative or value.is_positive:
            return bool(value.is_negative)
    return bool(c.could_extract_minus_sign())


def _step(power: int, latex: bool) -> str:
    if power == 0:
        return ""
    return f"h{_power(power, latex)}"


def _power(power: int, latex: bool) -> str:
    if power == 1:
        return ""
    return f"^{{{power}}}" if latex else superscript(power)


def _applied(tree: Tree, letters: Letters, powers: bool, degree: int) -> str:
    """The text of the derivatives at a tree's vertices, applied to one another.

    `degree` is how many further arguments the derivative at the root takes.
    """
    names = []
    while True:
        below = _children(tree)
        names.append(letters.operator(tree, len(below) + degree))
        if len(below) != 1:
            break
        (tree,), degree = below, 1
    written = _product(names, powers, letters.latex)
    if not below:
        return written
    return f"{written}[{', '.join(_applied(child, letters, powers, 1) for child in below)}]"


def _contracted(tree: Tree, letters: Letters, powers: bool) -> str:
    """The text of a contraction: E, |g|², gᵀH² g along a path, otherwise a tensor on arguments."""
    arms = _children(tree)
    paths = [path for path in map(_path, arms) if path is not None]
    root = letters.operator(tree, len(arms))
    if not arms:
        return root
    if len(arms) > 2 or len(paths) < len(arms):
        return f"{root}[{', '.join(_applied(arm, letters, powers, 1) for arm in arms)}]"
    first, *second = [[letters.operator(t, len(_children(t)) + 1) for t in path] for path in paths]
    left, *between = [*reversed(first), root]
    inside = [*between, *(second[0] if second else [])]
    last = inside.pop()
    if not inside and left == last:
        return rf"\lvert {left}\rvert^{{2}}" if letters.latex else f"|{left}|²"
    middle = _product(inside, powers, letters.latex) + " " if inside else ""
    return f"{left}^{{\\top}}{middle}{last}" if letters.latex else f"{left}ᵀ{middle}{last}"


def _path(tree: Tree) -> list[Tree] | None:
    """The subtrees from the root to the leaf of an unbranched tree; None if it branches."""
    found = [tree]
    while below := _children(found[-1]):
        if len(below) > 1:
            return None
        found.extend(below)
    return found


def _product(names: list[str], powers: bool, latex: bool) -> str:
    """The text of operators applied one after the other, H H as H²."""
    if not powers:
        return " ".join(names)
    runs = [(name, len(list(run))) for name, run in groupby(names)]
    return " ".join(name + _power(n, latex) for name, n in runs)


def _children(tree: Tree) -> Tree:
    return tree[1:] if tree and isinstance(tree[0], int) else tree
