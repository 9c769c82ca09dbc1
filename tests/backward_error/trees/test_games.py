"""Two players: drift by hand, and against the logarithm of a linear map."""

import pytest
import sympy

from igr.backward_error import methods, modified_equation
from igr.backward_error.trees import order

h, r, s = sympy.symbols("h r s", positive=True)
X, Y = sympy.symbols("x y")
BILINEAR = (X * Y, -X * Y)


def field(method, order_, losses=BILINEAR, step=h):
    return modified_equation(method, order_).on(losses, ((X,), (Y,)), step)


def test_first_order_by_hand():
    """At once -1/2 f'f; in turns f_2'f_1 besides, the answer to the move just made."""
    at_once = modified_equation(methods.simultaneous((r, s)), 1)
    in_turns = modified_equation(methods.alternating((r, s)), 1)
    for i, a in enumerate((r, s)):
        assert at_once.coefficient((i,)) == in_turns.coefficient((i,)) == a
        for j, b in enumerate((r, s)):
            assert at_once.coefficient((i, (j,))) == -a * b / 2
            expected = a * b / 2 if (i, j) == (1, 0) else -a * b / 2
            assert in_turns.coefficient((i, (j,))) == expected


def test_bilinear_game_at_once_and_in_turns():
    """At once |z|^2 grows by h |z|^2; in turns x^2 + y^2 - h x y stands still, to this order."""
    at_once, in_turns = (field(m, 1) for m in (methods.simultaneous(), methods.alternating()))
    radius = (2 * X * at_once[0] + 2 * Y * at_once[1]).expand()
    assert sympy.expand(radius - h * (X**2 + Y**2)) == 0
    energy = X**2 + Y**2 - h * X * Y
    change = sympy.diff(energy, X) * in_turns[0] + sympy.diff(energy, Y) * in_turns[1]
    assert sympy.expand(change).coeff(h, 0) == sympy.expand(change).coeff(h, 1) == 0


@pytest.mark.parametrize(
    "ratios", [pytest.param((1, 1), marks=pytest.mark.slow), (sympy.Rational(1, 2), 3)]
)
@pytest.mark.parametrize("highest", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_quadratic_games_are_the_logarithm_of_a_matrix(ratios, highest):
    """On quadratic losses a round is a linear map, whose logarithm is the field."""
    a, b = X**2 + 3 * X * Y, Y**2 / 2 - X * Y
    first = sympy.Matrix([[-ratios[0] * sympy.diff(a, X, p) for p in (X, Y)], [0, 0]])
    second = sympy.Matrix([[0, 0], [-ratios[1] * sympy.diff(b, Y, p) for p in (X, Y)]])
    one = sympy.eye(2)
    rounds = {
        methods.simultaneous(ratios): one + h * (first + second),
        methods.alternating(ratios): (one + h * second) * (one + h * first),
        methods.alternating(ratios, (1, 3)): (one + h * second) ** 3 * (one + h * first),
        methods.alternating(ratios, (2, 1)): (one + h * second) * (one + h * first) ** 2,
    }
    for method, matrix in rounds.items():
        power, log = one, sympy.zeros(2, 2)
        for j in range(1, highest + 2):
            power = (power * (matrix - one)).expand()
            log += sympy.Rational((-1) ** (j + 1), j) * power
        found = field(method, highest, (a, b))
        expected = (log * sympy.Matrix([X, Y]) / h).expand()
        for row in range(2):
            for k in range(highest + 1):
                assert sympy.expand((found[row] - expected[row]).coeff(h, k)) == 0


def test_one_player_alone_is_gradient_descent():
    loss = X**4 / 3 + X**2
    alone = field(methods.alternating(), 3, (loss, sympy.Integer(0)))
    plain = modified_equation(methods.gradient_descent(), 3).on(loss, (X,), h)
    assert sympy.expand(alone[0] - plain[0]) == 0
    assert alone[1] == 0


def test_print_and_numbers():
    equation = modified_equation(methods.alternating((r, 1), (1, 2)), 1)
    assert equation.name == "alternating descent (ratios = (r, 1), steps = (1, 2))"
    assert equation.subs({"r": 0.5}).coefficient((0,)) == sympy.Rational(1, 2)
    assert equation.truncate(0).coefficients == {(0,): r, (1,): 2}
    second = modified_equation(methods.simultaneous(), 2)
    assert str(second).startswith("θ' = -A_θ - h (1/2 A_θθ A_θ + 1/2 A_θφ B_φ) - h² (")
    assert "1/3 A_θθ A_θθ A_θ" in str(second)
    assert "1/12 A_θθθ[A_θ, A_θ]" in str(second)
    assert r"A_{\theta \phi} B_{\phi}" in second.latex()
    assert max(order(t) for t in second.coefficients) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: methods.simultaneous((1, -1)), "ratios must be a pair of positive numbers"),
        (lambda: methods.alternating((1, 1, 1)), "ratios must be a pair of positive numbers"),
        (
            lambda: methods.alternating(steps=(1, 0)),
            "steps must be a pair of integers of at least 1",
        ),
        (
            lambda: modified_equation(methods.simultaneous(), 1).truncate(2),
            "order must be at most 1, that of the equation; got 2",
        ),
        (
            lambda: modified_equation(methods.simultaneous(), 0).coefficient((0, (1,))),
            r"belongs to h\^1, beyond the order 0",
        ),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
