"""Series over rooted trees, stored as dictionaries from tree to weight.

A vector field or a map is written F = sum_t h^(|t|-1) b(t)/sigma(t) F(t), with F(t) the elementary
differential of the tree t: over f = -grad E, or over the field that each vertex's colour stands
for. The *weight* b(t) = c(t) sigma(t) is what is stored: in weights the Lie derivative counts each
edge of a tree once (Hairer, Lubich and Wanner, *Geometric Numerical Integration*, Lemma IX.9.1),
and a field over one loss is a gradient exactly when b does not see where the root is.

Weights may be Python integers, fractions or elements of a sympy domain; a missing tree has weight
zero. The trees are the integers of `trees`, of the colours that stand in what is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import factorial
from typing import Any

from igr.backward_error.trees.rooted import (
    PLAIN,
    children,
    colour,
    colours,
    of_order,
    size,
    splittings,
)

Weight = Any  # an element of a commutative ring that Python's + and * understand
Series = Mapping[int, Weight]


def lie_derivative(of: Series, along: Series, vertices: int) -> dict[int, Weight]:
    """The series D_F A, the derivative of the series A along the field F, up to so many vertices.

    Its weight at t sums A(trunk) F(branch) over the edges of t, each of which splits t in two.
    """
    iterated = {t: [weight] for t, weight in of.items()}
    derivative = ((t, _derivatives(t, iterated, along)) for t in _up_to(vertices, of, along))
    return {t: d[0] for t, d in derivative if d and d[0]}


def transported(of: Series, along: Series, vertices: int) -> dict[int, Weight]:
    """The series exp(h D_F) A: A at the point to which the flow of F leads after the time h."""
    iterated: dict[int, list[Weight]] = {}
    result = {}
    for t in _up_to(vertices, of, along):
        d = iterated[t] = [of.get(t, 0), *_derivatives(t, iterated, along)]
        result[t] = sum(weight / factorial(j) for j, weight in enumerate(d) if weight)
    return {t: weight for t, weight in result.items() if weight}


def exponential(field: Series, vertices: int) -> dict[int, Weight]:
    """The series exp(h F): the increment (theta(h) - theta)/h of the flow of F after the time h.

    Weights must allow division by integers (fractions, or elements of a sympy field).
    """
    iterated: dict[int, list[Weight]] = {}  # D_F^j F
    result = {}
    for t in _up_to(vertices, field):
        d = iterated[t] = [field.get(t, 0), *_derivatives(t, iterated, field)]
        result[t] = _increment(d)
    return {t: weight for t, weight in result.items() if weight}


def logarithm(step: Series, vertices: int) -> dict[int, Weight]:
    """The field whose flow over the time h is the map with the given series over trees.

    The map is theta + h sum_t h^(|t|-1) step(t)/sigma(t) F(t); trees have at most `vertices`
    vertices.

    The inverse of `exponential`: the weight of a tree in exp(h F) is its weight in F plus what the
    smaller trees, already known, contribute.
    """
    iterated: dict[int, list[Weight]] = {}  # D_F^j F
    field: dict[int, Weight] = {}
    for t in _up_to(vertices, step):
        d = [0, *_derivatives(t, iterated, field)]
        weight = step.get(t, 0) - _increment(d)
        if weight:
            field[t] = d[0] = weight
        if any(d):
            iterated[t] = d
    return field


def invariant_field(numerators: Sequence[Weight], vertices: int) -> dict[int, Weight]:
    """Solves F = C(h D_F) f for the field F of a linear method, without a division.

    Args:
      numerators: c_0, c_1, ... with C(z) = sum_j (c_j / K) z^j: elements of a ring over one common
        denominator K. At least `vertices` of them.
      vertices: the largest number of vertices kept.

    Returns:
      tree -> K^|t| b(t), the weight times a denominator that is known beforehand.

    With D^j f = sum_t d_j(t)/sigma(t) F(t), an edge carries d_(j-1) from the trunk to d_j of the
    tree, times b of the branch; and b(t) = sum_j C_j d_j(t). Scaled by K^(|t|-1) every d_j is in
    the ring, and integers stay integers: this is where the speed comes from.
    """
    scaled: dict[int, Weight] = {}  # K^|t| b(t)
    iterated: dict[int, list[Weight]] = {}  # K^(|t|-1) d_j(t), j = 0 .. |t|-1
    for n in range(1, vertices + 1):
        for t in of_order(n):
            d = iterated[t] = [int(n == 1), *_derivatives(t, iterated, scaled)]
            # d_j(t) carries K^(|t|-1); c_j = K C_j supplies the missing factor.
            scaled[t] = sum(c * value for c, value in zip(numerators, d, strict=False) if value)
    return scaled


def runge_kutta_series(
    A: Sequence[Sequence[Weight]],
    b: Sequence[Weight],
    vertices: int,
    stage_colours: Sequence[int] | None = None,
) -> dict[int, Weight]:
    """The step of a Runge-Kutta method as a series over trees.

    Args:
      A: s x s coefficients: numbers, or elements of a sympy domain.
      b: the s weights of the stages in the step.
      vertices: the largest number of vertices kept.
      stage_colours: the colour of the vector field that each stage evaluates; one for all if None.

    Returns:
      The weights of (theta[n+1] - theta[n])/h: sum_i b_i u_i(t), with u_i(t) the product over the
      root's children of sum_j a_ij u_j (Hairer, Lubich and Wanner, III.1, Theorem 1.4).
    """
    stage_colours = stage_colours or (PLAIN,) * len(b)
    inner: dict[int, list[Weight]] = {}  # sum_j a_ij u_j(t) for each stage i
    step = {}
    for n in range(1, vertices + 1):
        for t in of_order(n, tuple(sorted(set(stage_colours)))):
            u = [int(c == colour(t)) for c in stage_colours]
            for child in children(t):
                u = [x and x * y for x, y in zip(u, inner[child], strict=True)]
            inner[t] = [sum(a * x for a, x in zip(row, u, strict=True) if a and x) for row in A]
            weight = sum(w * x for w, x in zip(b, u, strict=True) if x)
            if weight:
                step[t] = weight
    return step


def _derivatives(t: int, iterated: Mapping[int, Sequence[Weight]], along: Series) -> list[Weight]:
    """The weights at t of D_F A, D_F^2 A, .., from those of A, D_F A, .. at smaller trees."""
    d: list[Weight] = [0] * (size(t) - 1)
    for edges, branch, trunk in splittings(t):
        weight = along.get(branch)
        if weight:
            factor = edges * weight
            for j, value in enumerate(iterated.get(trunk, ())):
                if value:
                    d[j] += factor * value
    return d


def _increment(d: Sequence[Weight]) -> Weight:
    """The weight of exp(h F) at a tree, from those of F, D_F F, D_F^2 F, .."""
    return sum(weight / factorial(j) for j, weight in enumerate(d, 1) if weight)


def _up_to(vertices: int, *given: Series) -> Iterator[int]:
    """All trees with at most so many vertices, in the colours of the given series, by size."""
    palette = tuple(sorted({c for series in given for t in series for c in colours(t)}))
    for n in range(1, vertices + 1):
        yield from of_order(n, palette)
