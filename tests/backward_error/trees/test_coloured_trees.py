"""Trees of several colours against brute force, and what all equations over trees answer alike."""

import pickle
from collections import Counter
from itertools import product

import pytest
import sympy

from igr.backward_error import NotAGradientError, methods, modified_equation, trees
from igr.backward_error.protocols import Equation, Method, UnansweredError
from igr.backward_error.trees import printing
from tests.backward_error.trees.formal_flow import random_polynomial, vanishes

x, y, h = sympy.symbols("x y h")
LOSSES = [random_polynomial((x, y), 3, seed=k, terms=4) for k in range(3)]
ALL = {
    "one loss": methods.gradient_descent(),
    "Runge-Kutta": methods.runge_kutta([[0]], [1]),
    "players": methods.alternating(),
    "shared": methods.reshuffled_sgd(3),
    "ordered": methods.cyclic_sgd(3),
    "sampled": methods.sgd_with_replacement(2),
}


def coloured(parents, colours):
    """The nested tuple of a tree given by the parent of each vertex but the first."""

    def hang(at):
        below = [hang(v) for v, p in enumerate(parents, 1) if p == at]
        return (colours[at], *sorted(below))

    return hang(0)


@pytest.mark.parametrize("n", range(1, 6))
def test_all_trees_of_two_colours(n):
    """Every parent for each vertex and every colour, up to isomorphism: A038055."""
    parents = product(*(range(v) for v in range(1, n)))
    found = {coloured(p, c) for p in parents for c in product((0, 1), repeat=n)}
    ours = [trees.as_tuple(t) for t in trees.of_order(n, (0, 1))]
    assert set(ours) == found
    assert len(ours) == len(found) == [2, 4, 14, 52, 214][n - 1]


@pytest.mark.parametrize("n", range(2, 5))
def test_rootings_and_splittings_keep_the_colours(n):
    for t in trees.of_order(n, (0, 1)):
        for r in trees.rooted_alike(t):
            assert Counter(trees.colours(r)) == Counter(trees.colours(t))
            assert trees.rooted_alike(r)[0] == trees.rooted_alike(t)[0]
        cut = [(e, branch, trunk) for e, branch, trunk in trees.splittings(t)]
        assert sum(e for e, _, _ in cut) == n - 1
        for _, branch, trunk in cut:
            # What was cut off may be grafted back.
            assert trees.as_tuple(t) in trees.graft(trees.as_tuple(branch), trees.as_tuple(trunk))


def test_colours_are_not_mixed():
    for bad in ((0, ()), (((), (0,)))):
        with pytest.raises(TypeError, match="all vertices of a tree must carry a colour, or none"):
            trees.intern(bad)


@pytest.mark.parametrize("name", ALL)
class TestEveryColouring:
    def test_protocols(self, name):
        assert isinstance(ALL[name], Method)
        equation = modified_equation(ALL[name], 1)
        assert isinstance(equation, Equation)
        assert equation.kept == ALL[name].kept == ()
        assert equation.truncate(order=0).order == 0

    def test_orders(self, name):
        equation = modified_equation(ALL[name], 1)
        asked = [equation.truncate, equation.is_gradient, equation.modified_loss]
        for ask in (*asked, lambda order: modified_equation(ALL[name], order)):
            for bad in (1.0, True, "1"):
                with pytest.raises(
                    TypeError, match="order must be an integer, the highest power of h"
                ):
                    ask(order=bad)
            with pytest.raises(ValueError, match="at least 0, the highest power of h kept; got -1"):
                ask(order=-1)
        for ask in asked:
            with pytest.raises(
                ValueError, match="order must be at most 1, that of the equation; got 2"
            ):
                ask(order=2)

    def test_text_is_no_number(self, name):
        equation = modified_equation(ALL[name], 0)
        params = ((x,), (y,)) if name == "players" else (x, y)
        count = {"players": 2, "one loss": 0, "Runge-Kutta": 0}.get(name, 3)
        loss = LOSSES[:count] if count else LOSSES[0]
        with pytest.raises(
            TypeError, match="h must be a number or a sympy expression; got the text"
        ):
            equation.on(loss, params, "print('x') or 1")
        texts = ["x"] * count if count else "x"
        with pytest.raises(TypeError, match=r"loss.*(text|'x')"):
            equation.on(texts, params, h)

    def test_pickles(self, name):
        equation = modified_equation(ALL[name], 1)
        again = pickle.loads(pickle.dumps(equation))
        assert again == equation
        assert str(again) == str(equation)


def test_a_game_has_no_gradient_part():
    equation = modified_equation(methods.simultaneous(), 1)
    assert not equation.is_gradient(0)
    for ask in (equation.gradient_part, equation.obstruction):
        with pytest.raises(UnansweredError, match="each player has a loss of its own"):
            ask()
    with pytest.raises(NotAGradientError, match="each player has a loss of its own"):
        equation.modified_loss()
    with pytest.raises(TypeError, match=r"a tree of players is \(player, \*children\)"):
        equation.coefficient((2,))


@pytest.mark.parametrize("name", [pytest.param("shared", marks=pytest.mark.slow), "ordered"])
def test_the_gradient_part_over_batches(name):
    """Curl-free, with a loss whose gradient it is; with the obstruction it makes the whole."""
    equation = modified_equation(ALL[name], 2)
    part, rest = equation.gradient_part(), equation.obstruction()
    whole, field, left = (e.on(LOSSES, (x, y), h) for e in (equation, part, rest))
    assert vanishes(*(field + left - whole))
    assert vanishes(sympy.diff(field[0], y) - sympy.diff(field[1], x))
    assert not vanishes(sympy.diff(left[0], y) - sympy.diff(left[1], x))
    modified = part.modified_loss().on(LOSSES, (x, y), h)
    assert vanishes(*(f + sympy.diff(modified, p) for f, p in zip(field, (x, y), strict=True)))


def test_floats_that_are_fractions():
    third = methods.runge_kutta([[0.0, 0.0], [2 / 3, 0.0]], [1 / 4, 3 / 4])
    assert third.A[1][0] == sympy.Rational(2, 3)
    sixths = methods.runge_kutta(
        [[0, 0, 0, 0], [0.5, 0, 0, 0], [0, 0.5, 0, 0], [0, 0, 1, 0]], [1 / 6, 1 / 3, 1 / 3, 1 / 6]
    )
    assert sixths.b == tuple(map(sympy.Rational, ("1/6", "1/3", "1/3", "1/6")))
    assert list(modified_equation(sixths, 3).coefficients) == [()]  # order four
    root = 3**0.5 / 6  # irrational: Gauss's weights are halves, Radau's would not be
    gauss = methods.runge_kutta([[0.25, 0.25 - root], [0.25 + root, 0.25]], [0.5, 0.5])
    assert modified_equation(gauss, 1).coefficients[()] == 1
    w = 2**0.5 / 5
    assert sum(methods.runge_kutta([[0, 0, 0]] * 3, [w, w, 1 - 2 * w]).b) == 1
    with pytest.raises(ValueError, match="b must sum to 1; got 1001/1000"):
        methods.runge_kutta([[0]], [1.001])


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (x**2 * y / 3, "x² y/3"),
        (-2 * x / (3 * y**2), "-2 x/(3 y²)"),
        (sympy.sqrt(x + 1) / y, "sqrt(x + 1)/y"),
        (1 / sympy.sqrt(x), "1/sqrt(x)"),
        (x ** (-2), "x^(-2)"),
        (x ** sympy.Rational(1, 3), "x^(1/3)"),
        (2**x * sympy.exp(-y), "2^x exp(-y)"),
        (-3 * (x + y), "-3 x - 3 y"),
        (sympy.Symbol("kappa_nu") * sympy.Symbol("beta1"), "β1 κ_ν"),
        (sympy.Symbol("alphabet"), "alphabet"),
        ((x - y) ** 10 * (x + 1), "(x + 1) (x - y)¹⁰"),
    ],
    ids=str,
)
def test_plain(expression, text):
    assert printing.plain(expression) == text
