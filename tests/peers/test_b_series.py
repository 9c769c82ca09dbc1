"""Tables of B-series: order conditions, trees, modified and modifying equations of known methods.

A method is of order p when the sum of its elementary weights over a tree is 1/density for every
tree of up to p vertices, and then h^p is the first power in its modified equation, whose
coefficient on a tree of p + 1 vertices is the error (a(t) - 1/density(t)) / symmetry(t).
"""

from fractions import Fraction
from itertools import combinations_with_replacement
from math import factorial, prod

import pytest
import sympy

from igr.backward_error import methods, modified_equation

pytestmark = pytest.mark.slow
F = Fraction


def rooted(vertices):
    """All rooted trees of so many vertices, as sorted tuples of their children."""
    if vertices == 1:
        return [()]
    smaller = {n: rooted(n) for n in range(1, vertices)}

    def forests(left, largest):
        if left == 0:
            yield ()
            return
        for n in range(min(left, largest), 0, -1):
            for count in range(1, left // n + 1):
                for some in combinations_with_replacement(smaller[n], count):
                    for others in forests(left - n * count, n - 1):
                        yield (*some, *others)

    return [tuple(sorted(f)) for f in forests(vertices - 1, vertices - 1)]


def size(t):
    return 1 + sum(map(size, t))


def density(t):
    return size(t) * prod(map(density, t))


def symmetry(t):
    return prod(factorial(t.count(u)) for u in set(t)) * prod(map(symmetry, t))


def weight(t, A, b):
    """The elementary weight of a tree: sum_i b_i prod over children of the stages under them."""

    def stages(t):
        below = [stages(u) for u in t]
        found = []
        for row in range(len(b)):
            found.append(
                prod((sum(A[row][j] * s[j] for j in range(len(b))) for s in below), start=F(1))
            )
        return found

    return sum(x * y for x, y in zip(b, stages(t), strict=True))


# name: A, b, order
TABLEAUX = {
    "Euler": ([[0]], [1], 1),
    "implicit Euler": ([[1]], [1], 1),
    "implicit midpoint": ([[F(1, 2)]], [1], 2),
    "explicit midpoint": ([[0, 0], [F(1, 2), 0]], [0, 1], 2),
    "Heun": ([[0, 0], [1, 0]], [F(1, 2), F(1, 2)], 2),
    "Ralston": ([[0, 0], [F(2, 3), 0]], [F(1, 4), F(3, 4)], 2),
    "trapezoidal": ([[0, 0], [F(1, 2), F(1, 2)]], [F(1, 2), F(1, 2)], 2),
    "Kutta of order 3": (
        [[0, 0, 0], [F(1, 2), 0, 0], [-1, 2, 0]],
        [F(1, 6), F(2, 3), F(1, 6)],
        3,
    ),
    "Heun of order 3": (
        [[0, 0, 0], [F(1, 3), 0, 0], [0, F(2, 3), 0]],
        [F(1, 4), 0, F(3, 4)],
        3,
    ),
    "strong stability of order 3": (
        [[0, 0, 0], [1, 0, 0], [F(1, 4), F(1, 4), 0]],
        [F(1, 6), F(1, 6), F(2, 3)],
        3,
    ),
    "Radau IIA": ([[F(5, 12), F(-1, 12)], [F(3, 4), F(1, 4)]], [F(3, 4), F(1, 4)], 3),
    "Kutta of order 4": (
        [[0, 0, 0, 0], [F(1, 2), 0, 0, 0], [0, F(1, 2), 0, 0], [0, 0, 1, 0]],
        [F(1, 6), F(1, 3), F(1, 3), F(1, 6)],
        4,
    ),
    "three eighths": (
        [[0, 0, 0, 0], [F(1, 3), 0, 0, 0], [F(-1, 3), 1, 0, 0], [1, -1, 1, 0]],
        [F(1, 8), F(3, 8), F(3, 8), F(1, 8)],
        4,
    ),
    "Lobatto IIIA": (
        [[0, 0, 0], [F(5, 24), F(1, 3), F(-1, 24)], [F(1, 6), F(2, 3), F(1, 6)]],
        [F(1, 6), F(2, 3), F(1, 6)],
        4,
    ),
}  # fmt: skip


def rational(x):
    return sympy.Rational(x.numerator, x.denominator)


def test_numbers_of_trees():
    assert [len(rooted(n)) for n in range(1, 8)] == [1, 1, 2, 4, 9, 20, 48]
    for n in range(1, 7):  # n! / (density symmetry) labels a tree in so many ways: (n-1)! in all
        labels = [F(factorial(n), density(t) * symmetry(t)) for t in rooted(n)]
        assert sum(labels) == factorial(n - 1)


@pytest.mark.parametrize("name", TABLEAUX)
def test_order_and_leading_error(name):
    A, b, order = TABLEAUX[name]
    small = [t for n in range(1, order + 1) for t in rooted(n)]
    conditions = [weight(t, A, b) == F(1, density(t)) for t in small]
    assert all(conditions)
    equation = modified_equation(methods.runge_kutta(A, b), order)
    for n in range(2, order + 1):
        assert all(equation.coefficient(t) == 0 for t in rooted(n))
    for t in rooted(order + 1):
        error = (weight(t, A, b) - F(1, density(t))) / symmetry(t)
        assert equation.coefficient(t) == rational(error), t
    assert any(equation.coefficient(t) != 0 for t in rooted(order + 1))


@pytest.mark.parametrize("name", TABLEAUX)
def test_the_flow_of_the_modified_equation_is_the_method(name):
    """Composed by hand: sum_k h^k/k! of the modified field's Lie derivatives has the weights a(t).

    The logarithm of a B-series is what the library takes; here its exponential is, with the fields
    as polynomials in one variable: y' = y^2 separates the trees by all of their densities.
    """
    A, b, order = TABLEAUX[name]
    y, h = sympy.symbols("y h")
    top = order + 2
    field = modified_equation(methods.runge_kutta(A, b), top - 1).on(-(y**3) / 3, (y,), h)[0]
    flowed, term = y, y
    for k in range(1, top + 1):
        term = sympy.expand(sympy.diff(term, y) * field * h / k)
        flowed += term
    # On y' = y^2 the differential of t at y is prod 2!/(2 - children)! y^(n + 1).
    step = y

    def differential(t):
        if len(t) > 2:
            return 0
        return factorial(2) // factorial(2 - len(t)) * prod(map(differential, t))

    for n in range(1, top + 1):
        for t in rooted(n):
            value = rational(F(weight(t, A, b)) / symmetry(t)) * differential(t)
            step += value * h**n * y ** (n + 1)
    difference = sympy.series(sympy.expand(flowed - step), h, 0, top + 1).removeO()
    assert sympy.expand(difference) == 0


def test_symplectic_methods_have_the_antisymmetry_of_hamiltonian_fields():
    """b(u o v) + b(v o u) = 0, b the coefficients times symmetries, where u o v has v at its root.

    Hairer, Lubich and Wanner, Geometric Numerical Integration, theorem IX.9.3; among these
    tableaux the midpoint rule is the only one that keeps quadratic invariants.
    """
    for name, (A, b, order) in TABLEAUX.items():
        equation = modified_equation(methods.runge_kutta(A, b), order + 1)

        def scaled(t, equation=equation):
            return equation.coefficient(t) * symmetry(t)

        pairs = [
            (u, v)
            for n in range(1, order + 2)
            for m in range(1, order + 3 - n)
            for u in rooted(n)
            for v in rooted(m)
        ]
        sums = [scaled(tuple(sorted((*u, v)))) + scaled(tuple(sorted((*v, u)))) for u, v in pairs]
        assert all(x == 0 for x in sums) == keeps_quadratics(A, b), name
    assert keeps_quadratics(*TABLEAUX["implicit midpoint"][:2])


def keeps_quadratics(A, b):
    return all(
        b[i] * A[i][j] + b[j] * A[j][i] == b[i] * b[j] for i in range(len(b)) for j in range(len(b))
    )


@pytest.mark.parametrize(
    ("method", "series"),
    [
        # log(1 + x)/x in x = -h H on a quadratic; of the implicit rule -log(1 - x)/x.
        (methods.gradient_descent(), [(-1) ** k * sympy.Rational(1, k + 1) for k in range(7)]),
        (methods.runge_kutta([[1]], [1]), [sympy.Rational(1, k + 1) for k in range(7)]),
    ],
    ids=["explicit", "implicit"],
)
def test_tall_trees_are_the_logarithm(method, series):
    equation, tall = modified_equation(method, 6), ()
    for expected in series:
        assert equation.coefficient(tall) == expected
        tall = (tall,)


@pytest.mark.parametrize("vertices", [2, 3, 4, 5])
def test_euler_on_bushy_trees_has_the_numbers_of_bernoulli(vertices):
    """y' = f(t) beside t' = 1 is a quadrature, of which Euler's sum has B_k/k! of f^(k) h^k."""
    equation = modified_equation(methods.gradient_descent(), vertices - 1)
    bushy = ((),) * (vertices - 1)
    k = vertices - 1
    number = sympy.bernoulli(k) if k != 1 else sympy.Rational(-1, 2)
    assert equation.coefficient(bushy) == number / factorial(k)
