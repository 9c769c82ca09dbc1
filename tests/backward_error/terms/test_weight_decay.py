"""Decoupled weight decay: by hand, by the term algebra, and against recurrences."""

import pickle

import pytest
import sympy

from igr.backward_error import NotAGradientError, methods, modified_equation
from igr.backward_error.methods import elementwise, g, theta

beta, c, h, lam = sympy.symbols("beta c h lambda")
X, Y = sympy.symbols("x y")
E = X**4 * Y / 3 + X**2 * Y**3 + X * Y - Y**5 / 5 + X**2
AT = {X: sympy.Rational(7, 10), Y: sympy.Rational(-2, 5), h: sympy.Rational(1, 7)}
MOMENTUM = [methods.heavy_ball, methods.ema_momentum, methods.nesterov]


def test_gradient_descent_is_that_on_the_loss_with_decay():
    """g -> g + c theta and H -> H + c in every term."""
    decayed = modified_equation(methods.gradient_descent(weight_decay=c), 3).on(E, (X, Y), h)
    plain = modified_equation(methods.gradient_descent(), 3)
    penalized = plain.on(E + c * (X**2 + Y**2) / 2, (X, Y), h)
    assert (decayed - penalized).applyfunc(sympy.expand) == sympy.zeros(2, 1)


@pytest.mark.parametrize(
    "make",
    [
        methods.heavy_ball,
        *(pytest.param(make, marks=pytest.mark.slow) for make in MOMENTUM[1:]),
    ],
    ids=lambda f: f.__name__,
)
def test_trees_and_terms_agree(make):
    """The rule m + c theta through the term algebra, which knows nothing of a loss with decay."""
    b, decay = sympy.Rational(7, 10), sympy.Rational(3, 10)
    by_trees = modified_equation(make(b, weight_decay=decay), 2)
    rule = elementwise(sympy.Symbol("m") + decay * theta, {"m": (g, make(b).transfer)})
    by_terms = modified_equation(rule, 2)
    apart = by_trees.on(E, (X, Y), h) - by_terms.on(E, (X, Y), h)
    assert all(abs(sympy.N(x.subs(AT), 30)) < 1e-25 for x in apart)


@pytest.mark.parametrize("make", MOMENTUM, ids=lambda f: f.__name__)
def test_slow_root_on_a_quadratic(make):
    """On lambda x^2/2 the method is a recurrence with the slow root exp(h F/x)."""
    b, decay, curvature = (sympy.Rational(n, 10) for n in (5, 2, 7))
    field = modified_equation(make(b, weight_decay=decay), 3).on(curvature * X**2 / 2, (X,), h)
    numerator, denominator = make(b).recurrence
    r = sympy.Symbol("r")
    steps = (1, sympy.Rational(1, 2))
    errors = []
    for size in steps:
        at = size / sympy.Integer(1000)
        memory = sum(x * r**-i for i, x in enumerate(numerator))
        memory /= sum(x * r**-i for i, x in enumerate(denominator))
        root = sympy.nsolve(r - 1 + at * (curvature * memory + decay), r, 1 - at, prec=40)
        errors.append(abs(sympy.log(root) / at - sympy.N(field[0].subs({h: at, X: 1}), 40)))
    assert float(sympy.log(errors[0] / errors[1], 2)) == pytest.approx(4, abs=0.1)


def test_heavy_ball_by_hand():
    """F0 = -g_c/(1-b), F1 = [c b/(1-b)^2 - (1+b)/(2 (1-b)^3) H_c] g_c, E_c = E + c (1-b) x^2/2."""
    equation = modified_equation(methods.heavy_ball(beta, weight_decay=c), 1)
    assert sympy.cancel(equation.colouring.decay - c * (1 - beta)) == 0
    expected = 1 / (1 - beta) - h * c * beta / (1 - beta) ** 2
    assert sympy.cancel(equation.coefficient(()) - expected) == 0
    expected = -(1 + beta) / (2 * (1 - beta) ** 3)
    assert sympy.cancel(equation.coefficient(((),)) - expected) == 0


def test_the_certificate_counts_powers_of_the_step():
    equation = modified_equation(methods.heavy_ball(0.5, weight_decay=0.1), 2)
    assert equation.is_gradient(1)
    assert not equation.is_gradient(2)
    with pytest.raises(NotAGradientError, match=r"no modified loss at h\^2") as caught:
        equation.modified_loss()
    assert caught.value.order == 2
    loss = equation.modified_loss(1)
    assert str(loss) == "2 E - h (1/5 E - 3 |g|²) + O(h²), with E + 1/40 |θ|² for E"
    slope = -sympy.Matrix([sympy.diff(loss.on(E, (X, Y), h), p) for p in (X, Y)])
    apart = slope - equation.truncate(1).on(E, (X, Y), h)
    assert apart.applyfunc(sympy.expand) == sympy.zeros(2, 1)


def test_numbers_copies_and_print():
    open_ = modified_equation(methods.heavy_ball(beta, weight_decay=c), 1)
    assert open_.parameters == (beta, c)
    closed = open_.subs({"beta": 0.5, c: 0.1})
    direct = modified_equation(methods.heavy_ball(0.5, weight_decay=0.1), 1)
    assert closed.coefficients == direct.coefficients
    assert closed.colouring == direct.colouring
    assert closed.name == direct.name == "heavy ball (beta = 1/2, weight decay = 1/10)"
    assert str(closed) == "θ' = -2 g + h (1/5 g - 6 H g) + O(h²), with E + 1/40 |θ|² for E"
    assert closed.latex().endswith(
        r"O(h^{2}) \text{ with } E + \frac{1}{40} \lvert\theta\rvert^{2} \text{ for } E"
    )
    for equation in (open_, closed):
        copy = pickle.loads(pickle.dumps(equation))
        assert copy.coefficients == equation.coefficients
        assert copy.name == equation.name
        assert copy.colouring == equation.colouring
    assert closed.truncate(0).coefficients == {(): 2}


@pytest.mark.parametrize(
    "make", [lambda **k: methods.heavy_ball(0.5, **k), methods.gradient_descent]
)
def test_bad_decay(make):
    with pytest.raises(
        ValueError, match="weight_decay must be a number of at least 0 or a sympy symbol"
    ):
        make(weight_decay=-0.1)
