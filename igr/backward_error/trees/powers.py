"""The powers of h inside the coefficients of a series, besides the h^(|t|-1) of its trees."""

from __future__ import annotations

from collections.abc import Mapping

import sympy

from igr.backward_error.algebra.taylor import STEP
from igr.backward_error.trees.rooted import Tree, order


def by_power(
    coefficients: Mapping[Tree, sympy.Expr],
) -> list[tuple[int, list[tuple[Tree, sympy.Expr]]]]:
    """The terms of a series, grouped by their total power of h.

    Args:
      coefficients: c(t) of h^(|t|-1) F(t), numbers or polynomials in h.

    Returns:
      (power, [(tree, coefficient), ..]) by rising power.

    >>> by_power({(): 2 + 3 * STEP, ((),): sympy.Integer(5)})
    [(0, [((), 2)]), (1, [((), 3), (((),), 5)])]
    """
    groups: dict[int, list[tuple[Tree, sympy.Expr]]] = {}
    for tree, c in coefficients.items():
        for further, part in step_powers(c):
            groups.setdefault(order(tree) - 1 + further, []).append((tree, part))
    return sorted(groups.items())


def step_powers(c: sympy.Expr) -> list[tuple[int, sympy.Expr]]:
    """The (power of h, factor) pairs of a coefficient, by rising power."""
    if STEP not in c.free_symbols:
        return [(0, c)]
    terms = sympy.Poly(sympy.cancel(c), STEP, domain="EX").terms()
    return sorted((power, sympy.cancel(part)) for (power,), part in terms)
