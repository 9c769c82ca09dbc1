"""Elementwise rules against formulas derived by hand, and against trees for linear rules."""

import pytest
import sympy
from sympy import Rational, Symbol, exp, sqrt

from igr.backward_error import methods, modified_equation
from igr.backward_error.methods import elementwise, g, z

X, Y, H = sympy.symbols("x y h")
E = X**4 * Y / 3 + X**2 * Y**3 + X * Y - Y**5 / 5 + X**2
AT = {X: Rational(7, 10), Y: Rational(-2, 5), H: Rational(1, 7)}


def _numbers(field):
    return [sympy.N(f.subs(AT), 25) for f in field]


def _close(a, b):
    return all(abs(x - y) < 1e-18 for x, y in zip(_numbers(a), _numbers(b), strict=True))


@pytest.mark.parametrize(
    ("transfer", "method"),
    [
        (1, methods.gradient_descent()),
        pytest.param(
            1 / (1 - Rational(1, 2) * exp(-z)), methods.heavy_ball(0.5), marks=pytest.mark.slow
        ),
        pytest.param(
            1 + Rational(7, 10) / (1 - Rational(7, 10) * exp(-z)),
            methods.nesterov(0.7),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["gradient descent", "heavy ball", "nesterov"],
)
def test_terms_and_trees_agree_on_linear_rules(transfer, method):
    """Two engines with nothing in common but the master equation."""
    terms = modified_equation(elementwise(Symbol("m"), {"m": (g, transfer)}), 3)
    trees = modified_equation(method, 3)
    assert _close(terms.on(E, (X, Y), H), trees.on(E, (X, Y), H))


def _gradient_and_hessian():
    gradient = sympy.Matrix([sympy.diff(E, X), sympy.diff(E, Y)])
    return gradient, sympy.hessian(E, (X, Y))


@pytest.mark.parametrize("inside", [True, False], ids=["eps inside the root", "eps outside"])
def test_adam_with_both_moments_eliminated(inside):
    """F1 = -1/(2 r) [(1+b1)/(1-b1) - (1+b2)/(1-b2) (1-q)] H s, s = g/r, q the share of eps."""
    b1, b2, e = Rational(1, 2), Rational(7, 10), Rational(1, 5)
    eps = {"eps": 0, "eps_root": e} if inside else {"eps": e}
    equation = modified_equation(methods.adam(b1, b2, **eps, keep=()), 1)
    gradient, hessian = _gradient_and_hessian()
    if inside:
        r = gradient.applyfunc(lambda x: sqrt(x**2 + e))
        q = gradient.applyfunc(lambda x: e / (x**2 + e))
    else:
        r = gradient.applyfunc(lambda x: sqrt(x**2) + e)
        q = gradient.applyfunc(lambda x: e / (sqrt(x**2) + e))
    s = gradient.multiply_elementwise(r.applyfunc(lambda x: 1 / x))
    along = hessian * s
    bracket = q.applyfunc(lambda x: (1 + b1) / (1 - b1) - (1 + b2) / (1 - b2) * (1 - x))
    first = -along.multiply_elementwise(bracket).multiply_elementwise(r.applyfunc(lambda x: 1 / x))
    assert _close(equation.on(E, (X, Y), H), -s + H * first / 2)


def test_rmsprop_is_adam_without_first_moment():
    e = Rational(1, 5)
    rms = modified_equation(methods.rmsprop(Rational(7, 10), e), 2)
    adam = modified_equation(methods.adam(0, Rational(7, 10), 0, e, keep=()), 2)
    assert _close(rms.on(E, (X, Y), H), adam.on(E, (X, Y), H))


def test_decoupled_decay_on_adam():
    """Without memory F1 = -1/2 Psi' Psi, Psi = s + c theta, as for any step downhill."""
    c, e = Rational(3, 10), Rational(1, 5)
    method = methods.adam(0, 0, 0, e, weight_decay=c, keep=())
    equation = modified_equation(method, 1)
    gradient, hessian = _gradient_and_hessian()
    theta = sympy.Matrix([X, Y])
    psi = gradient.applyfunc(lambda x: x / sqrt(x**2 + e)) + c * theta
    slope = gradient.applyfunc(lambda x: e / (x**2 + e) ** Rational(3, 2))
    turned = slope.multiply_elementwise(hessian * psi) + c * psi
    assert _close(equation.on(E, (X, Y), H), -psi - H * turned / 2)


def test_adam_with_its_second_moment_kept():
    """theta' and v' to h^1, v a variable: the h^1 term of theta' has H theta0' and v0' in it."""
    b1, e, kappa = Rational(1, 2), Rational(1, 5), Symbol("kappa_v", positive=True)
    v = Symbol("v")
    method = elementwise(
        Symbol("m") / sqrt(v + e),
        {"m": (g, (1 - b1) / (1 - b1 * exp(-z)))},
        {"v": (g**2, Rational(1, 10))},
    )
    equation = modified_equation(method, 1)
    (contraction,) = equation.contractions.items()
    along, (direction,) = contraction[0], contraction[1].vectors
    assert sympy.simplify(direction - g / sqrt(v + e)) == 0
    r, slow = sqrt(v + e), kappa * (g**2 - v)
    expected = -Rational(1, 2) * (1 + b1) / (1 - b1) * along / r + g * slow / (4 * r**3)
    assert sympy.simplify(equation.field[1] - expected) == 0
    assert sympy.simplify(equation.states[v][0] - slow) == 0
    assert sympy.simplify(equation.states[v][1] - (kappa * g * along + kappa * slow / 2)) == 0


def test_a_bias_correction_reads_the_clock():
    """At h^0 the second moment is divided by 1 - e^(-lambda t), lambda = -log(b2)/h."""
    equation = modified_equation(methods.adam(0.9, 0.99, eps=0), 0)
    nu, t, forgetting = Symbol("nu"), methods.t, Symbol("lambda_nu", positive=True)
    assert equation.field[0].equals(-g / sqrt(nu / (1 - exp(-forgetting * t))))
    assert equation.rates[forgetting] == -sympy.log(Rational(99, 100))


def test_a_sum_that_is_kept_by_hand():
    """Adagrad, y <- y + g^2: F_y1 = kappa (2 g L[F_0] - F_y0')/2 with the step's B(z) = 1 - z/2."""
    y, kappa = Symbol("y"), Symbol("kappa_y", positive=True)
    equation = modified_equation(elementwise(g / sqrt(y), {}, {"y": (y + g**2, 1)}), 1)
    assert equation.field[0] == -g / sqrt(y)
    assert equation.states[y][0] == kappa * g**2
    ((symbol, contraction),) = equation.contractions.items()
    along = Symbol("along")  # H[-g/sqrt(y)]
    (vector,) = contraction.vectors
    sign = (vector / (g / sqrt(y))).simplify()
    first = equation.field[1].xreplace({symbol: sign * -along})
    # theta[n+1] = theta - h g/sqrt(y[n+1]), y[n+1] = y + h kappa g^2, less half of D F_0.
    by_hand = g * kappa * g**2 / (2 * y ** Rational(3, 2))
    by_hand -= (-along / sqrt(y) + g * kappa * g**2 / (2 * y ** Rational(3, 2))) / 2
    assert (first - by_hand).simplify() == 0
    slow = equation.states[y][1].xreplace({symbol: sign * -along})
    assert (slow - (-kappa * g * along)).simplify() == 0


def test_what_was_before_the_update_lags_by_a_step():
    """With y read before its update the correction of h^1 that its motion makes is missing."""
    y, kappa = Symbol("y"), Symbol("kappa_y", positive=True)
    new, old = (
        modified_equation(elementwise(g / read, {}, {"y": (g**2, Rational(1, 10))}), 1)
        for read in (y, Symbol("y_before"))
    )
    moved = g / y**2 * kappa * (g**2 - y)
    assert (new.field[1] - old.field[1] - moved).simplify() == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: methods.adam(1.0), r"b1 must be a number in \[0, 1\)"),
        (lambda: methods.adam(b2=-0.1), r"b2 must be a number in \[0, 1\)"),
        (lambda: methods.rmsprop(2), r"decay must be a number in \[0, 1\)"),
        (lambda: methods.adam(keep=("v",)), "states of Adam, which are mu, nu; got v"),
        (lambda: methods.rmsprop(keep="mu"), "states of RMSProp, which are nu; got mu"),
        (lambda: methods.lion(b2=0, smoothing=1, keep=("mu",)), "no momentum to keep"),
        (lambda: methods.adam(eps=-1), "eps must be a number of at least 0"),
        (lambda: methods.adamw(weight_decay=-1), "weight_decay must be a number of at least 0"),
        (lambda: methods.signsgd(0), "smoothing must be a positive number"),
        (lambda: elementwise(g, {"m": (g, 1)}), "does not read the channel m"),
        (
            lambda: elementwise(Symbol("v"), {"m": (g, 1)}),
            "the rule reads v, which is no channel: there are m, g, theta, t.*parameters=",
        ),
        (lambda: elementwise(Symbol("m"), {"m": (Symbol("v"), 1)}), "m reads v, which is no chan"),
        (
            lambda: elementwise(Symbol("m"), {"m": (Symbol("v"), 1), "v": (Symbol("m") + g, 1)}),
            "m, v read each other",
        ),
        (lambda: elementwise(Symbol("m"), {"m": (Symbol("m") + g, 1)}), "m reads m, which is no"),
        (
            lambda: elementwise(Symbol("m"), {}, {"m": (Symbol("v_before"), 1)}),
            "m reads v_before, which is no channel",
        ),
        (lambda: elementwise(Symbol("m"), {"m": (g, Symbol("b"))}), "memory of m reads b, which"),
        (lambda: elementwise(Symbol("m"), {"m": (g, 1 / z)}), "not analytic at z = 0"),
        (
            lambda: elementwise(Symbol("m"), {}, {"m": (g, 2)}),
            r"rate of m must be a number in \(0, 1\]",
        ),
        (lambda: elementwise(Symbol("L1"), {"L1": (g, 1)}), "must differ from one another"),
        (lambda: elementwise(g, {"theta": (g, 1)}), "must differ from one another and from g"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_order_out_of_reach():
    equation = modified_equation(methods.rmsprop(), 1)
    with pytest.raises(ValueError, match="order must be at most 1"):
        equation.truncate(2)
