"""The coefficients against formulas: by hand, from the literature, from identities."""

from fractions import Fraction

import pytest
import sympy

from igr.backward_error import methods, modified_equation, trees
from igr.backward_error.algebra.taylor import taylor_coefficients
from tests.quick import quick

beta, c, h, lam, r = sympy.symbols("beta c h lambda r")
z = methods.z

# Over f = -g, F(t) carries one sign a vertex: H g is +F(((),)), H^2 g is -F((((),),)), and so on.
DOT = ()
HG = ((),)
HHG, TGG = (HG,), ((), ())
HHHG, H_TGG, T_G_HG, Q_GGG = (HHG,), (TGG,), ((), HG), ((), (), ())


def over_g(equation, *terms):
    """The coefficients over g = grad E of the differentials of these trees, in factored form."""
    return [sympy.factor((-1) ** trees.order(t) * equation.coefficient(t)) for t in terms]


def same(found, expected):
    return [sympy.cancel(a - b) for a, b in zip(found, expected, strict=True)] == [0] * len(found)


def test_gradient_descent_to_h3():
    eq = modified_equation(methods.gradient_descent(), 3)
    third, quarter, twelfth = (sympy.Rational(1, k) for k in (3, 4, 12))
    assert over_g(eq, DOT, HG) == [-1, -sympy.Rational(1, 2)]
    assert over_g(eq, HHG, TGG) == [-third, -twelfth]
    assert over_g(eq, HHHG, H_TGG, T_G_HG, Q_GGG) == [-quarter, -twelfth, -twelfth, 0]
    assert set(eq.coefficients) == {DOT, HG, HHG, TGG, HHHG, H_TGG, T_G_HG}


def test_heavy_ball_to_h2():
    eq = modified_equation(methods.heavy_ball(beta), 2)
    expected = [
        -1 / (1 - beta),
        -(1 + beta) / (2 * (1 - beta) ** 3),
        -(1 + 4 * beta + beta**2) / (3 * (1 - beta) ** 5),
        -(1 + 10 * beta + beta**2) / (12 * (1 - beta) ** 5),
    ]
    assert same(over_g(eq, DOT, HG, HHG, TGG), expected)


def test_nesterov_to_h1():
    eq = modified_equation(methods.nesterov(beta), 1)
    expected = [-1 / (1 - beta), -(1 - beta + 2 * beta**2) / (2 * (1 - beta) ** 3)]
    assert same(over_g(eq, DOT, HG), expected)


def test_averaged_momentum_is_heavy_ball_with_a_smaller_step():
    """(1 - beta) heavy ball at h is heavy ball at (1 - beta) h, per unit of the larger time."""
    averaged = modified_equation(methods.ema_momentum(beta), 3)
    heavy = modified_equation(methods.heavy_ball(beta), 3)
    for tree, coefficient in averaged.coefficients.items():
        scaled = (1 - beta) ** trees.order(tree) * heavy.coefficient(tree)
        assert sympy.cancel(coefficient - scaled) == 0
    assert same(over_g(averaged, DOT, HG), [-1, -(1 + beta) / (2 * (1 - beta))])


def test_without_momentum_all_are_gradient_descent():
    plain = modified_equation(methods.gradient_descent(), 5).coefficients
    for make in (methods.heavy_ball, methods.ema_momentum, methods.nesterov):
        assert modified_equation(make(0), 5).coefficients == plain


# Explicit Euler: identities that hold at every order.

ORDER = 11  # trees to 12 vertices


@pytest.fixture(scope="module")
def euler():
    return modified_equation(methods.gradient_descent(), ORDER)


def test_tall_trees(euler):
    """b = (-1)^(n+1)/n: on a linear gradient F is log(1 - h lambda)/h."""
    tree = ()
    for n in range(1, ORDER + 2):
        assert euler.coefficient(tree) * trees.symmetry(tree) == sympy.Rational((-1) ** (n + 1), n)
        tree = (tree,)


def test_bushy_trees(euler):
    """b = B_k, the Bernoulli numbers with B_1 = -1/2, here from their own recurrence."""
    bernoulli = [Fraction(1)]
    for n in range(1, ORDER + 1):
        row, binomial = Fraction(0), 1
        for k, number in enumerate(bernoulli):
            row += binomial * number
            binomial = binomial * (n + 1 - k) // (k + 1)
        bernoulli.append(-row / (n + 1))
    assert bernoulli[1] == Fraction(-1, 2)
    assert bernoulli[10] == Fraction(5, 66)
    for k, number in enumerate(bernoulli):
        tree = ((),) * k
        b = euler.coefficient(tree) * trees.symmetry(tree)
        assert b == sympy.Rational(number.numerator, number.denominator)


def test_every_tree_is_counted(euler):
    assert len(euler.coefficients) == sum(b != 0 for b in euler.weights.values())
    assert sum(len(trees.trees_of_order(n)) for n in range(1, ORDER + 2)) == 7813


def test_trees_in_any_order_of_children():
    eq = modified_equation(methods.gradient_descent(), 4)
    assert eq.coefficient((((),), ())) == eq.coefficient(((), ((),)))
    assert eq.coefficient(((((),), ()),)) == eq.coefficient((((), ((),)),))


# On E = lambda theta^2/2 a method is a recurrence with characteristic roots, and the slow root
# rho(h) = e^(h F/theta) is the flow: one case a method, derived by hand.


def quadratic_field(method, order):
    x = sympy.Symbol("x")
    (field,) = modified_equation(method, order).on(lam * x**2 / 2, (x,), h)
    return sympy.expand(sympy.cancel(field / x))


def log_of_slow_root(polynomial, order):
    """log(rho)/h to h^order, rho = 1 + O(h) a root of a polynomial in r, by Newton's iteration."""
    root, slope = sympy.Integer(1), sympy.diff(polynomial, r).subs({r: 1, h: 0})

    def cut(expression, most):
        p = sympy.Poly(sympy.expand(expression), h)
        return sum(sympy.factor(a) * h**k for (k,), a in p.terms() if k <= most)

    for k in range(1, order + 2):
        root = cut(root - polynomial.subs(r, root) / slope, k)
    power, log = sympy.Integer(1), sympy.Integer(0)
    for j in range(1, order + 2):
        power = cut(power * (root - 1), order + 1)
        log += sympy.Rational((-1) ** (j + 1), j) * power
    return sympy.expand(cut(log, order + 1) / h)


def test_quadratic_gradient_descent():
    """theta[n+1] = (1 - h lambda) theta[n]: F = log(1 - h lambda)/h theta."""
    expected = -sum(h**k * lam ** (k + 1) / (k + 1) for k in range(9))
    assert sympy.expand(quadratic_field(methods.gradient_descent(), 8) - expected) == 0


CHARACTERISTIC = {
    # theta[n+1] - theta[n] = beta (theta[n] - theta[n-1]) - h lambda theta[n]
    "heavy ball": (methods.heavy_ball, r**2 - (1 + beta - h * lam) * r + beta),
    # the same with (1 - beta) h for h
    "averaged momentum": (
        methods.ema_momentum,
        r**2 - (1 + beta - (1 - beta) * h * lam) * r + beta,
    ),
    # theta[n+1] = (1 - h lambda) y at y = theta[n] + beta (theta[n] - theta[n-1])
    "Nesterov": (methods.nesterov, r**2 - (1 - h * lam) * ((1 + beta) * r - beta)),
}


@pytest.mark.parametrize("name", quick(list(CHARACTERISTIC), "averaged momentum"))
def test_quadratic_momentum(name):
    make, polynomial = CHARACTERISTIC[name]
    field = quadratic_field(make(beta), 3)
    assert sympy.cancel(field - log_of_slow_root(polynomial, 3)) == 0


def test_quadratic_heavy_ball_in_closed_form():
    """The root itself at beta = 1/4, where the square root is rational at h = 0."""
    s = 1 + sympy.Rational(1, 4) - h
    root = (s + sympy.sqrt(s**2 - 1)) / 2
    expected = sympy.series(sympy.log(root), h, 0, 5).removeO() / h
    field = quadratic_field(methods.heavy_ball(sympy.Rational(1, 4)), 3).subs(lam, 1)
    assert sympy.expand(field - expected) == 0


def test_quadratic_two_gradients_averaged():
    """theta[n+1] = theta[n] - (h/2)(g[n] + g[n-1]): r^2 = r - (h lambda/2)(r + 1)."""
    method = methods.linear_memory((1 + sympy.exp(-z)) / 2)
    polynomial = r**2 - r + h * lam / 2 * (r + 1)
    assert sympy.cancel(quadratic_field(method, 4) - log_of_slow_root(polynomial, 4)) == 0


# Transfer functions


def test_taylor_coefficients_of_the_memories():
    """1/(1 - b e^-z) has (-1)^j/j! b A_j(b)/(1-b)^(j+1), A_j the Eulerian polynomials."""
    eulerian = [None, 1, 1 + beta, 1 + 4 * beta + beta**2, 1 + 11 * beta + 11 * beta**2 + beta**3]
    momentum = [1 / (1 - beta)] + [
        sympy.Rational((-1) ** j, sympy.factorial(j)) * beta * eulerian[j] / (1 - beta) ** (j + 1)
        for j in range(1, 5)
    ]
    bernoulli = [sympy.bernoulli(j) / sympy.factorial(j) for j in range(5)]
    bernoulli[1] = -sympy.Rational(1, 2)  # z/(e^z - 1), whichever sign sympy has
    expected = [sum(momentum[i] * bernoulli[j - i] for i in range(j + 1)) for j in range(5)]
    assert same(methods.heavy_ball(beta).taylor(5), expected)
    heavy, nesterov, averaged = (
        make(beta).transfer for make in (methods.heavy_ball, methods.nesterov, methods.ema_momentum)
    )
    assert sympy.simplify(nesterov - (1 + beta * heavy)) == 0
    assert sympy.simplify(averaged - (1 - beta) * heavy) == 0


@pytest.mark.parametrize(
    "transfer",
    [
        sympy.exp(z) - z**2,
        1 / (2 - sympy.exp(-z)) ** 3,
        (1 - sympy.exp(-z)) / z,
        z**3 / (sympy.exp(z) - 1) ** 3,
        sympy.exp(z**2 - z) * c,
        sympy.sin(z) / z,
        sympy.log(2 + z),
        sympy.sqrt(2) * sympy.exp(-z),
    ],
    ids=str,
)
def test_taylor_coefficients_of_any_transfer(transfer):
    expected = sympy.series(transfer, z, 0, 5).removeO()
    found = taylor_coefficients(transfer, 5)
    assert same(found, [sympy.expand(expected).coeff(z, k) for k in range(5)])


def test_recurrences():
    """The difference equations of the methods, as one writes them down."""
    assert methods.gradient_descent().recurrence == ((1,), (1,))
    assert methods.heavy_ball(beta).recurrence == ((1,), (1, -beta))
    assert same(methods.ema_momentum(beta).recurrence[0], [1 - beta])
    numerator, denominator = methods.nesterov(beta).recurrence
    assert same(numerator, [1 + beta, -beta])
    assert denominator == (1, -beta)
    half = sympy.Rational(1, 2)
    assert methods.linear_memory((1 + sympy.exp(-z)) / 2).recurrence == ((half, half), (1,))
    for transfer in (sympy.exp(z), 1 + z):
        with pytest.raises(ValueError, match="has no finite memory: its transfer function"):
            _ = methods.linear_memory(transfer).recurrence
