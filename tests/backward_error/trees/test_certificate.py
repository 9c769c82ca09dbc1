"""Which equations are gradients: certificate, loss, gradient part and obstruction."""

import pickle
import subprocess
import sys
from itertools import combinations

import pytest
import sympy

from igr.backward_error import NotAGradientError, methods, modified_equation, trees
from tests.backward_error.trees.formal_flow import random_polynomial, vanishes
from tests.quick import quick

x, y, u, h, beta, c = sympy.symbols("x y u h beta c")
z = methods.z
QUARTIC = random_polynomial((x, y), 4, seed=21, terms=6)
IN_THREE = random_polynomial((x, y, u), 4, seed=22, terms=6)

# F = -(1 - c h D_F)^(-1) g, which is F - c h F' F = -g: solved by a gradient at every order.
ALWAYS_A_GRADIENT = methods.linear_memory((sympy.exp(z) - 1) / (z * (1 - c * z)))


def is_curl_free(field, params):
    """d_i F_j = d_j F_i for i < j, with F an m x 1 Matrix."""
    return vanishes(
        *(
            sympy.diff(field[j], params[i]) - sympy.diff(field[i], params[j])
            for i, j in combinations(range(len(params)), 2)
        )
    )


def test_gradient_descent_has_a_loss_at_h_and_none_at_h2():
    eq = modified_equation(methods.gradient_descent(), 4)
    assert [eq.is_gradient(k) for k in range(5)] == [True, True, False, False, False]
    assert not eq.is_gradient()
    for k in range(2):
        assert is_curl_free(eq.truncate(k).on(QUARTIC, (x, y), h), (x, y))
    assert not is_curl_free(eq.truncate(2).on(QUARTIC, (x, y), h), (x, y))


@pytest.mark.parametrize("make", [methods.heavy_ball, methods.ema_momentum, methods.nesterov])
def test_momentum_has_a_loss_at_h_and_none_at_h2(make):
    eq = modified_equation(make(beta), 2)
    assert [eq.is_gradient(k) for k in range(3)] == [True, True, False]
    with pytest.raises(NotAGradientError) as caught:
        eq.modified_loss()
    assert caught.value.order == 2
    assert caught.value.tree in {(((),),), ((), ())}


def test_heavy_ball_loss():
    """(1/(1-b)) (L + h (1+b)/(4 (1-b)^2) |g|^2)."""
    loss = modified_equation(methods.heavy_ball(beta), 1).modified_loss().on(QUARTIC, (x, y), h)
    squared = sum(sympy.diff(QUARTIC, p) ** 2 for p in (x, y))
    expected = (QUARTIC + h * (1 + beta) / (4 * (1 - beta) ** 2) * squared) / (1 - beta)
    assert sympy.simplify(loss - expected) == 0


def test_error_says_what_does_exist():
    eq = modified_equation(methods.gradient_descent(), 3)
    with pytest.raises(
        NotAGradientError,
        match=r"gradient descent follows no modified loss at h\^2: the tree \(\(\(\),\),\) "
        r"\(H² g\).*A loss exists up to h\^1: modified_loss\(1\)",
    ) as caught:
        eq.modified_loss()
    assert isinstance(caught.value, ValueError)
    assert (caught.value.order, caught.value.tree) == (2, (((),),))
    # The tree is a witness: another rooting of it has another weight.
    weights = {t: eq.coefficient(t) * trees.symmetry(t) for t in trees.rootings(caught.value.tree)}
    assert len(set(weights.values())) == 2
    assert eq.modified_loss(caught.value.order - 1).order == 1


def test_a_method_that_follows_a_loss_at_every_order():
    eq = modified_equation(ALWAYS_A_GRADIENT, 9)
    assert eq.is_gradient()
    assert eq.obstruction().coefficients == {}
    assert eq.gradient_part().coefficients == eq.coefficients
    # Its weights: b(t) = c^(|t|-1) |t|!/gamma(t), the same for all rootings only as a whole.
    tall, n = (), 1
    while n <= 6:
        assert sympy.simplify(eq.coefficient(tall) - catalan(n - 1) * c ** (n - 1)) == 0
        tall, n = (tall,), n + 1


def catalan(n):
    return sympy.binomial(2 * n, n) / (n + 1)


@pytest.mark.parametrize(
    ("loss", "params", "order"),
    [(x**4 / 4 - x**2, (x,), 6), (x**3 / 3 + x * y**2 - y, (x, y), 5), (IN_THREE, (x, y, u), 2)],
    ids=["1d", "2d", "3d"],
)
def test_its_loss_solves_a_hamilton_jacobi_equation(loss, params, order):
    """Ltilde = L - (c h/2) |grad Ltilde|^2, exactly, order by order."""
    modified = modified_equation(ALWAYS_A_GRADIENT, order).modified_loss().on(loss, params, h)
    squared = sum(sympy.diff(modified, p) ** 2 for p in params)
    symbols, *_ = sympy.ring([h, c, *params], sympy.QQ)
    rest = symbols.from_expr(modified - loss + c * h / 2 * squared)
    assert rest
    assert all(power > order for power, *_ in rest)


@pytest.mark.parametrize(
    ("method", "order", "loss"),
    [
        (methods.gradient_descent(), 1, QUARTIC),
        (methods.heavy_ball(sympy.Rational(1, 3)), 1, IN_THREE),
        (methods.nesterov(sympy.Rational(1, 5)), 1, x**3 + x * y**2),
        pytest.param(ALWAYS_A_GRADIENT, 3, QUARTIC, marks=pytest.mark.slow),
        pytest.param(ALWAYS_A_GRADIENT, 5, x**3 / 3 + x * y**2 - y, marks=pytest.mark.slow),
    ],
    ids=["gradient descent", "heavy ball", "Nesterov", "all orders, h3", "all orders, h5"],
)
def test_the_field_descends_its_loss(method, order, loss):
    params = sorted(loss.free_symbols, key=str)
    eq = modified_equation(method, order)
    modified = eq.modified_loss().on(loss, params, h)
    for component, p in zip(eq.on(loss, params, h), params, strict=True):
        assert vanishes(component + sympy.diff(modified, p))


METHODS = {
    "gradient descent": methods.gradient_descent(),
    "heavy ball": methods.heavy_ball(sympy.Rational(1, 2)),
    "Nesterov": methods.nesterov(sympy.Rational(1, 3)),
    "delayed": methods.linear_memory(sympy.exp(-2 * z)),
}


@pytest.mark.parametrize("name", quick(list(METHODS), "heavy ball"))
class TestSplit:
    def test_the_parts_make_the_whole(self, name):
        eq = modified_equation(METHODS[name], 6)
        part, rest = eq.gradient_part(), eq.obstruction()
        for n in range(1, 8):
            for t in trees.trees_of_order(n):
                assert part.coefficient(t) + rest.coefficient(t) == eq.coefficient(t)
        assert part.is_gradient()
        assert part.obstruction().coefficients == {}
        assert rest.gradient_part().coefficients == {}

    def test_the_gradient_part_is_a_gradient(self, name):
        part = modified_equation(METHODS[name], 3).gradient_part()
        assert is_curl_free(part.on(QUARTIC, (x, y), h), (x, y))
        part = part.truncate(2)
        field = part.on(IN_THREE, (x, y, u), h)
        assert is_curl_free(field, (x, y, u))
        loss = part.modified_loss().on(IN_THREE, (x, y, u), h)
        for component, p in zip(field, (x, y, u), strict=True):
            assert vanishes(component + sympy.diff(loss, p))

    def test_the_obstruction_is_none(self, name):
        rest = modified_equation(METHODS[name], 2).obstruction()
        assert not is_curl_free(rest.on(QUARTIC, (x, y), h), (x, y))


def test_gradient_descent_at_h2_by_hand():
    """F2 = -(1/12) grad(g'Hg) - (1/6) H^2 g."""
    eq = modified_equation(methods.gradient_descent(), 2)
    g = sympy.Matrix([sympy.diff(QUARTIC, p) for p in (x, y)])
    hessian = g.jacobian([x, y])
    obstruction = eq.obstruction()
    assert obstruction.coefficients == {(((),),): sympy.Rational(1, 6)}
    field = obstruction.on(QUARTIC, (x, y), h)
    assert vanishes(*(field + h**2 / 6 * hessian**2 * g))
    scalar = QUARTIC + h / 4 * g.dot(g) + h**2 / 12 * (g.T * hessian * g)[0]
    loss = eq.gradient_part().modified_loss().on(QUARTIC, (x, y), h)
    assert vanishes(loss - scalar)


def test_a_method_without_memory_sum_zero_stands_still():
    eq = modified_equation(methods.linear_memory(z), 3)
    assert eq.coefficients == {}
    assert eq.on(QUARTIC, (x, y), h) == sympy.zeros(2, 1)
    assert eq.modified_loss().on(QUARTIC, (x, y), h) == 0


# Values: equality, hash, pickle


def test_equations_are_values():
    eq, same = (modified_equation(methods.heavy_ball(beta), 2) for _ in range(2))
    assert eq == same
    assert hash(eq) == hash(same)
    assert eq.truncate(1).modified_loss() == same.modified_loss(1)
    assert hash(eq.truncate(1).modified_loss()) == hash(same.modified_loss(1))
    assert eq != eq.truncate(1)


def test_pickles_mean_the_same_in_another_process(tmp_path):
    """The table of trees grows in another order there."""
    eq = modified_equation(methods.gradient_descent(), 4)
    path = tmp_path / "equation.pickle"
    path.write_bytes(pickle.dumps((eq, eq.modified_loss(1))))
    script = (
        "import pickle, sys\n"
        "from igr.backward_error import trees\n"
        "trees.intern(((), (), ((), ((),))))\n"
        "eq, loss = pickle.load(open(sys.argv[1], 'rb'))\n"
        "print(repr(eq), eq.coefficients, repr(loss))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, path], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"{eq!r} {eq.coefficients} {eq.modified_loss(1)!r}"


# Bad input

EQ = modified_equation(methods.gradient_descent(), 2)


@pytest.mark.parametrize("order", [1.0, "2", None, True, 2.5, [1]])
def test_order_is_an_integer(order):
    for function in (
        lambda: modified_equation(methods.gradient_descent(), order),
        lambda: EQ.truncate(order),
    ):
        with pytest.raises(
            TypeError, match="order must be an integer, the highest power of h kept; got"
        ):
            function()
    if order is not None:
        for function in (EQ.is_gradient, EQ.modified_loss):
            with pytest.raises(TypeError, match="order must be an integer"):
                function(order)


def test_order_is_not_negative():
    for function in (
        lambda: modified_equation(methods.gradient_descent(), -1),
        lambda: EQ.truncate(-1),
        lambda: EQ.is_gradient(-1),
        lambda: EQ.modified_loss(-1),
    ):
        with pytest.raises(ValueError, match=r"order must be at least 0, .*; got -1"):
            function()


def test_order_is_that_of_the_equation_at_most():
    for function in (EQ.truncate, EQ.is_gradient, EQ.modified_loss):
        with pytest.raises(
            ValueError, match="order must be at most 2, that of the equation; got 3"
        ):
            function(3)


def test_numpy_integers_are_integers():
    import numpy as np

    assert modified_equation(methods.gradient_descent(), np.int64(2)) == EQ


@pytest.mark.parametrize("method", ["heavy_ball", None, methods.heavy_ball, 0.9])
def test_method_is_a_method(method):
    with pytest.raises(TypeError, match=r"method must be one of igr\.methods.*got"):
        modified_equation(method, 1)


def test_tree_is_within_the_order():
    with pytest.raises(
        ValueError, match=r"belongs to h\^3, beyond the order 2 of this equation: derive it to"
    ):
        EQ.coefficient(((), (), ()))
    with pytest.raises(TypeError, match="a tree must be the nested tuple"):
        EQ.coefficient([()])


@pytest.mark.parametrize("make", [methods.heavy_ball, methods.ema_momentum, methods.nesterov])
class TestBeta:
    @pytest.mark.parametrize(
        "value", [-0.1, 1, 1.5, float("nan"), float("inf"), sympy.I, sympy.sqrt(2)]
    )
    def test_number(self, make, value):
        with pytest.raises(
            ValueError, match=r"beta must be a number in \[0, 1\) or a sympy symbol"
        ):
            make(value)

    @pytest.mark.parametrize("value", ["0.9", None, True, [0.9]])
    def test_kind(self, make, value):
        with pytest.raises(TypeError, match="beta must be a number or a sympy expression; got"):
            make(value)


@pytest.mark.parametrize(
    "transfer",
    [
        1 / z,
        sympy.log(z),
        sympy.exp(1 / z),
        1 / (1 - sympy.exp(-z)),
        sympy.sqrt(z),
        sympy.gamma(z),
        sympy.nan,
        sympy.oo,
        sympy.Piecewise((1, z > 0), (0, True)),
    ],
    ids=str,
)
def test_transfer_is_analytic(transfer):
    with pytest.raises(ValueError, match="not analytic at z = 0: the weights of the memory must"):
        methods.linear_memory(transfer)


@pytest.mark.parametrize("transfer", ["1 + z", None, True, sympy.Matrix([1]), z > 0])
def test_transfer_is_an_expression(transfer):
    with pytest.raises(TypeError, match="transfer must be a number or a sympy expression; got"):
        methods.linear_memory(transfer)


def test_corners_are_not_analytic():
    """|z| is smooth from each side; the corner shows at the first derivative."""
    with pytest.raises(ValueError, match="not analytic at z = 0"):
        modified_equation(methods.linear_memory(1 + sympy.Abs(z)), 1)


class TestSubs:
    eq = modified_equation(methods.heavy_ball(beta), 1)

    def test_unknown_symbol(self):
        for key in (x, "gamma", "__import__('os')"):
            with pytest.raises(ValueError, match=r"the equation has no symbol .* it has beta"):
                self.eq.subs({key: 0.5})

    def test_pole(self):
        with pytest.raises(ValueError, match="the coefficients are not finite at"):
            self.eq.subs({beta: 1})

    def test_value(self):
        with pytest.raises(
            TypeError, match="beta must be a number or a sympy expression; got the text"
        ):
            self.eq.subs({beta: "0.9"})

    def test_another_symbol(self):
        substituted = self.eq.subs({beta: 1 - c})
        assert substituted.parameters == (c,)
        assert sympy.simplify(substituted.coefficient(()) - 1 / c) == 0
