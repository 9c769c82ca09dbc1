"""Flows as truncated power series in h over exact polynomials: the ground truth of these tests.

A point is a tuple of polynomials in the coordinates and h over the rationals; nothing here knows
trees, methods or transfer functions.
"""

from random import Random

import sympy
from sympy.polys.ring_series import rs_mul, rs_trunc
from sympy.polys.rings import PolyRing, ring

h = sympy.Symbol("h")


class FormalSpace:
    """Polynomials in some coordinates, modulo h^precision."""

    def __init__(self, coordinates, precision):
        self.coordinates = tuple(coordinates)
        self.precision = precision
        self.ring, *generators = ring([*self.coordinates, h], sympy.QQ)
        *self.at, self.h = generators

    def read(self, expression):
        return rs_trunc(self.ring.from_expr(expression), self.h, self.precision)

    def gradient(self, loss):
        return [self.read(sympy.diff(loss, x)) for x in self.coordinates]

    def times(self, a, b):
        return rs_mul(a, b, self.h, self.precision)

    def along(self, field, function):
        """The derivative of a function along a field."""
        slopes = (self.times(f, function.diff(x)) for f, x in zip(field, self.at, strict=True))
        return sum(slopes, self.ring(0))

    def flow(self, field, steps=1):
        """The point that the flow of the field reaches from theta after time steps * h."""
        point, term, factor = list(self.at), list(self.at), sympy.Integer(1)
        for j in range(1, self.precision):
            factor = factor * steps / j
            term = [self.times(self.h, self.along(field, c)) for c in term]
            point = [p + c * self.ring(factor) for p, c in zip(point, term, strict=True)]
        return point

    def substitute(self, function, point):
        """A polynomial of the coordinates at another point."""
        powers = [[self.ring(1)] for _ in point]
        total = self.ring(0)
        for monomial, coefficient in function.terms():
            *exponents, power_of_h = monomial
            term = self.ring(coefficient) * self.h**power_of_h
            for k, x, known in zip(exponents, point, powers, strict=True):
                while len(known) <= k:
                    known.append(self.times(known[-1], x))
                term = self.times(term, known[k])
            total += term
        return total


def vanishes(*expressions):
    """Whether polynomials with rational coefficients are zero, without a symbolic expansion."""
    return all(
        not PolyRing(sorted(e.free_symbols, key=str), sympy.QQ).from_expr(e)
        for e in map(sympy.sympify, expressions)
    )


def random_polynomial(coordinates, degree, seed, terms=None):
    """Small rational coefficients on every monomial, or on so many of them, up to the degree."""
    random = Random(seed)
    monomials = sorted(
        sympy.polys.monomials.itermonomials(coordinates, degree), key=sympy.default_sort_key
    )
    top = [m for m in monomials if sympy.Poly(m, *coordinates).total_degree() == degree]
    if terms is not None:
        monomials = [*random.sample(monomials, terms), random.choice(top)]
    return sum(
        sympy.Rational(random.choice([-3, -2, -1, 1, 2, 3]), random.randint(1, 4)) * m
        for m in monomials
    )
