"""Series over rooted trees, as dictionaries from tree to weight.

A vector field or a map is written F = sum_t h^(|t|-1) b(t)/sigma(t) F(t), with F(t) the elementary
differential of the tree t over f = -grad E. The *weight* b(t) = c(t) sigma(t) is what is stored:
in weights the Lie derivative counts each edge of a tree once (Hairer, Lubich and Wanner,
*Geometric Numerical Integration*, Lemma IX.9.1), and the field is a gradient exactly when b does
not see where the root is.

Weights may be Python integers, fractions or elements of a sympy domain; a missing tree has weight
zero. The trees are the integers of `trees`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import factorial
from typing import Any

import sympy

from igr.backward_error import trees
from igr.backward_error.algebra.taylor import STEP
from igr.backward_error.trees.rooted import Tree

Weight = Any  # an element of a commutative ring that Python's + and * understand
Series = Mapping[int, Weight]


def by_power(
    coefficients: Mapping[Tree, sympy.Expr],
) -> list[tuple[int, list[tuple[Tree, sympy.Expr]]]]:
    """The terms of a series by the power of h they go with.

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
            groups.setdefault(trees.order(tree) - 1 + further, []).append((tree, part))
    return sorted(groups.items())


def step_powers(c: sympy.Expr) -> list[tuple[int, sympy.Expr]]:
    """The powers of h in a coefficient, rising, each with what it goes with."""
    if STEP not in c.free_symbols:
        return [(0, c)]
    terms = sympy.Poly(sympy.cancel(c), STEP, domain="EX").terms()
    return sorted((power, sympy.cancel(part)) for (power,), part in terms)


def lie_derivative(of: Series, along: Series, vertices: int) -> dict[int, Weight]:
    """D_F A, the derivative of the series A along the field F, up to so many vertices.

    Its weight at t sums A(trunk) F(branch) over the edges of t, each of which splits t in two.
    """
    result: dict[int, Weight] = {}
    for n in range(2, vertices + 1):
        for t in trees.of_order(n):
            total: Weight = 0
            for edges, branch, trunk in trees.splittings(t):
                if trunk in of and branch in along:
                    total += edges * of[trunk] * along[branch]
            if total:
                result[t] = total
    return result


def exponential(field: Series, vertices: int) -> dict[int, Weight]:
    """exp(h F): the increment (theta(h) - theta) / h of the flow of the field after one step.

    Weights must allow division by integers (fractions, or elements of a sympy field).
    """
    result: dict[int, Weight] = {}
    term: dict[int, Weight] = dict(field)  # D_F^(j-1) F
    for j in range(1, vertices + 1):
        for t, weight in term.items():
            result[t] = result.get(t, 0) + weight / factorial(j)
        term = lie_derivative(term, field, vertices)
    return {t: w for t, w in result.items() if w}


def logarithm(step: Series, vertices: int) -> dict[int, Weight]:
    """The field whose flow passes through a step theta + h sum_t h^(|t|-1) step(t)/sigma(t) F(t).

    The inverse of `exponential`: order by order, the weight of a tree in exp(h F) is its weight
    in F plus what the smaller trees, already known, contribute.
    """
    field: dict[int, Weight] = {}
    for n in range(1, vertices + 1):
        flow = exponential(field, n)
        for t in trees.of_order(n):
            weight = step.get(t, 0) - flow.get(t, 0)
            if weight:
                field[t] = weight
    return field


def invariant_field(numerators: Sequence[Weight], vertices: int) -> dict[int, Weight]:
    """Solves F = C(h D_F) f for the field F of a linear method, without a single division.

    Args:
      numerators: c_0, c_1, ... with C(z) = sum_j (c_j / K) z^j: elements of a ring over one common
        denominator K. At least `vertices` of them.
      vertices: the largest number of vertices kept.

    Returns:
      For every tree, K^|t| b(t): the weight over a denominator that is known beforehand.

    With D^j f = sum_t d_j(t)/sigma(t) F(t), an edge carries d_(j-1) from the trunk to d_j of the
    tree, times b of the branch; and b(t) = sum_j C_j d_j(t). Scaled by K^(|t|-1) every d_j is in
    the ring, and integers stay integers: this is where the speed comes from.
    """
    scaled: dict[int, Weight] = {}  # K^|t| b(t)
    iterated: dict[int, list[Weight]] = {}  # K^(|t|-1) d_j(t), j = 0 .. |t|-1
    for n in range(1, vertices + 1):
        for t in trees.of_order(n):
            d: list[Weight] = [0] * n
            if n == 1:
                d[0] = 1
            for edges, branch, trunk in trees.splittings(t):
                factor = edges * scaled[branch]
                if factor:
                    for j, value in enumerate(iterated[trunk], 1):
                        if value:
                            d[j] += factor * value
            iterated[t] = d
            # d_j(t) carries K^(|t|-1); c_j = K C_j supplies the missing factor.
            scaled[t] = sum(c * value for c, value in zip(numerators, d, strict=False) if value)
    return scaled
