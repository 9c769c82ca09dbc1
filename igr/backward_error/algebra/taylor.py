"""Exact Taylor coefficients of a transfer function, by power series arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import sympy
from sympy.polys.ring_series import rs_exp, rs_mul, rs_series_inversion, rs_trunc
from sympy.polys.rings import PolyElement, ring

from igr.checks import is_traced

Z = sympy.Symbol("z")
STEP = sympy.Symbol("h")  # the step, where a coefficient is a polynomial in it
_DIGITS = {"float64": 15, "float32": 6, "float16": 3, "bfloat16": 2}  # that survive as a decimal


def exact(expression: Any, argument: str = "expression") -> sympy.Expr:
    """A number or expression as an exact sympy expression, floats read as decimal fractions.

    A float is rounded to the decimal digits that its dtype holds, 15 in float64: 1 - 0.9, which
    is the float 0.09999999999999998, becomes 1/10.

    Args:
      expression: number or sympy expression.
      argument: what errors call it.

    Raises:
      TypeError: for text, which sympy would evaluate as Python, and for what is no expression.

    >>> exact(0.9), exact(1 - 0.9)
    (9/10, 1/10)
    """
    if isinstance(expression, str):
        raise TypeError(
            f"{argument} must be a number or a sympy expression; got the text {expression!r}; "
            "igr.backward_error.algebra.expressions.parse reads text."
        )
    try:
        found = _of_array(expression)
        if found is None:
            found = sympy.sympify(expression, strict=True)
    except sympy.SympifyError:
        found = sympy.false
    if not isinstance(found, sympy.Expr) or found.is_Matrix:
        raise TypeError(f"{argument} must be a number or a sympy expression; got {expression!r}.")
    return found.xreplace({x: sympy.Rational(f"{float(x):.15g}") for x in found.atoms(sympy.Float)})


def _of_array(value: Any) -> Any:
    """A real scalar or 0-d array of numpy or JAX as an exact number; None for anything else.

    False for a complex number, which is refused even where its imaginary part is zero.

    False of a complex number: one of zero imaginary part would come out real.
    """
    dtype = getattr(value, "dtype", None)
    if isinstance(value, complex) or getattr(dtype, "kind", "") == "c":
        return sympy.false
    if dtype is None or getattr(value, "shape", None) != () or is_traced(value):
        return None
    if dtype.kind in "iu":
        return sympy.Integer(int(value))
    digits = _DIGITS.get(str(dtype))
    if digits is None or not math.isfinite(value):
        return None if digits is None else sympy.sympify(float(value))
    return sympy.Rational(f"{float(value):.{digits}g}")


def fraction_field(expressions: Sequence[sympy.Expr]) -> tuple[Any, list[Any]]:
    """The smallest sympy field that contains the expressions, and them as its elements."""
    domain, elements = sympy.construct_domain(expressions, field=True)
    field = domain.get_field()  # not a ring of polynomials, which sympy cannot pickle
    return field, [field.convert_from(x, domain) for x in elements]


def taylor_coefficients(function: sympy.Expr, terms: int) -> list[sympy.Expr]:
    """The first `terms` Taylor coefficients at z = 0 of a function of z = `Z`, exactly.

    Args:
      function: sums, products, integer powers and exponentials of z; other symbols are
        parameters. A removable singularity at 0, such as z/(e^z - 1), is allowed.
      terms: how many coefficients.

    Returns:
      Exact coefficients of z^0, z^1, ..., rational in the parameters.

    Raises:
      ValueError: where the function is not analytic at z = 0.

    >>> taylor_coefficients(Z / (sympy.exp(Z) - 1), 3)
    [1, -1/2, 1/12]
    """
    numerator, denominator = sympy.fraction(sympy.together(function))
    parameters = sorted(function.free_symbols - {Z}, key=str)
    domain = sympy.QQ.frac_field(*parameters) if parameters else sympy.QQ
    # A zero of the denominator at z = 0 of order m costs m terms: look for it, then divide.
    for extra in (0, 1, 2, 4, 8, 16, 32):
        _, z = ring("z", domain)
        try:
            top = _series(numerator, z, terms + extra)
            bottom = _series(denominator, z, terms + extra)
        except (_NotPowerSeries, ValueError, sympy.CoercionFailed):
            return _by_sympy(function, terms)
        if bottom:
            lowest = min(monomial[0] for monomial in bottom)
            if lowest <= extra:
                break
    else:
        raise _not_analytic(function)
    if any(monomial[0] < lowest for monomial in top):
        raise _not_analytic(function)
    top, bottom = (rs_trunc(_shift(p, lowest), z, terms) for p in (top, bottom))
    quotient = rs_mul(top, rs_series_inversion(bottom, z, terms), z, terms)
    return [domain.to_sympy(quotient.coeff(z**k) if k else quotient.coeff(1)) for k in range(terms)]


class _NotPowerSeries(Exception):
    """Raised for an expression that is not made of sums, products, powers and exponentials."""


def _series(expression: sympy.Expr, z: PolyElement, terms: int) -> PolyElement:
    """The power series of an expression up to z^(terms - 1), by recursion on its structure."""
    if expression == Z:
        return z
    if Z not in expression.free_symbols:
        return z.ring(z.ring.domain.from_sympy(expression))
    if isinstance(expression, sympy.Add):
        return sum((_series(a, z, terms) for a in expression.args), z.ring(0))
    if isinstance(expression, sympy.Mul):
        result = z.ring(1)
        for factor in expression.args:
            result = rs_mul(result, _series(factor, z, terms), z, terms)
        return result
    if isinstance(expression, sympy.Pow) and expression.exp.is_Integer:
        base, exponent = _series(expression.base, z, terms), int(expression.exp)
        if exponent < 0:
            base, exponent = rs_series_inversion(base, z, terms), -exponent
        result = z.ring(1)
        for _ in range(exponent):
            result = rs_mul(result, base, z, terms)
        return result
    if isinstance(expression, sympy.exp):
        argument = _series(expression.args[0], z, terms)
        if argument.coeff(1):
            raise _NotPowerSeries  # e^(a + ...) with a not zero leaves the field of the parameters
        return rs_exp(argument, z, terms)
    raise _NotPowerSeries


def _shift(series: PolyElement, by: int) -> PolyElement:
    shifted = series.ring(0)
    for (power,), coefficient in series.terms():
        shifted[(power - by,)] = coefficient
    return shifted


def _by_sympy(function: sympy.Expr, terms: int) -> list[sympy.Expr]:
    expansion, from_below = (
        sympy.series(function, Z, 0, terms, dir=side).removeO() for side in "+-"
    )
    if sympy.simplify(expansion - from_below) != 0:  # |z| and its like
        raise _not_analytic(function)
    coefficients = [sympy.simplify(expansion.coeff(Z, k)) for k in range(terms)]
    rest = sympy.simplify(expansion - sum(c * Z**k for k, c in enumerate(coefficients)))
    if rest != 0 or any(not c.is_finite and c.is_number for c in coefficients):
        raise _not_analytic(function)
    return coefficients


def _not_analytic(function: sympy.Expr) -> ValueError:
    return ValueError(
        f"the transfer function {function} is not analytic at z = 0: the weights of the memory "
        "must sum to a finite number"
    )
