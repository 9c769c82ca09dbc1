"""A sympy expression as LaTeX, as one would write it by hand."""

from __future__ import annotations

import sympy
from sympy.printing.latex import LatexPrinter


def tex(expression: sympy.Basic) -> str:
    r"""A sympy expression as LaTeX text, sqrt(x^2) as |x| and small powers of ten as 10^(-n).

    >>> x = sympy.Symbol("x")
    >>> print(tex(x / (sympy.sqrt(x**2) + sympy.Rational(1, 10**8))))
    \frac{x}{\left|{x}\right| + 10^{-8}}
    """
    return _ByHand().doprint(expression)


def small_power_of_ten(number: sympy.Rational) -> int | None:
    """The exponent n if the number is 10^(-n) with n > 3, otherwise None."""
    digits = len(str(number.q)) - 1
    return digits if number.p == 1 and digits > 3 and number.q == 10**digits else None


class _ByHand(LatexPrinter):
    def _print_Pow(self, expr: sympy.Pow) -> str:
        base, exponent = expr.as_base_exp()
        if abs(exponent) == sympy.Rational(1, 2) and base.is_Pow and base.exp == 2:
            length = rf"\left|{{{self._print(base.base)}}}\right|"
            return length if exponent > 0 else rf"\frac{{1}}{{{length}}}"
        return super()._print_Pow(expr)

    def _print_Rational(self, expr: sympy.Rational) -> str:
        power = small_power_of_ten(expr)
        return super()._print_Rational(expr) if power is None else f"10^{{-{power}}}"
