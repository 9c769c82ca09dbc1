"""Fields and losses in closed form: the two-parameter model, tensors written out, the erratum."""

import pytest
import sympy

from igr.backward_error import methods, modified_equation
from tests.backward_error.trees.formal_flow import FormalSpace, random_polynomial, vanishes

a, b, x, y, h, beta = sympy.symbols("a b x y h beta")

# The two-parameter model of Barrett and Dherin (2021), appendix A.4.
E = (y - a * b * x) ** 2 / 2


class TestTwoParameterModel:
    """Equations A.25 to A.28, with lambda = m h/4 = h/2 for the m = 2 parameters."""

    rate = h / 2  # A.26
    regularizer = (a**2 + b**2) * x**2 * E  # A.25: R_IG = |grad E|^2/m, as printed

    def test_regularizer(self):
        """A.25: |grad E|^2/m = (a^2 + b^2) x^2 E, and lambda R_IG = h/4 |grad E|^2."""
        squared = sympy.diff(E, a) ** 2 + sympy.diff(E, b) ** 2
        assert vanishes(squared / 2 - self.regularizer)
        modified = modified_equation(methods.gradient_descent(), 1).modified_loss()
        assert vanishes(modified.on(E, (a, b), h) - E - self.rate * self.regularizer)

    def test_modified_loss(self):
        """A.27: E (1 + lambda (a^2 + b^2) x^2)."""
        modified = modified_equation(methods.gradient_descent(), 1).modified_loss()
        expected = E * (1 + self.rate * (a**2 + b**2) * x**2)
        assert vanishes(modified.on(E, (a, b), h) - expected)

    def test_modified_flow(self):
        """A.28, term by term as printed."""
        field = modified_equation(methods.gradient_descent(), 1).on(E, (a, b), h)
        factor = 1 + self.rate * (a**2 + b**2) * x**2
        for found, p in zip(field, (a, b), strict=True):
            expected = -sympy.diff(E, p) * factor - self.rate * 2 * p * x**2 * E
            assert vanishes(found - expected)

    def test_gradient_flow(self):
        """A.29 is the order 0."""
        field = modified_equation(methods.gradient_descent(), 0).on(E, (a, b), h)
        assert field == sympy.Matrix([-sympy.diff(E, p) for p in (a, b)]).applyfunc(sympy.factor)

    def test_at_the_numbers_of_table_1(self):
        """(a, b) = (2.8, 3.5), (x, y) = (1, 0.6), h = 0.025, worked out by hand.

        E' = a b x - y = 9.2; grad E = (32.2, 25.76); H = [[12.25, 19], [19, 7.84]].
        """
        field = modified_equation(methods.gradient_descent(), 1).on(
            E, (a, b), sympy.Rational(1, 40)
        )
        at = {a: sympy.Rational(14, 5), b: sympy.Rational(7, 2), x: 1, y: sympy.Rational(3, 5)}
        g = sympy.Matrix([sympy.Rational("32.2"), sympy.Rational("25.76")])
        hessian = sympy.Matrix([[sympy.Rational("12.25"), 19], [19, sympy.Rational("7.84")]])
        assert field.subs(at) == -g - hessian * g / 80


# Tensors written out, on polynomials without symmetry.

LOSS = random_polynomial((x, y), 4, seed=11, terms=8)
IN_THREE = random_polynomial((a, x, y), 4, seed=12, terms=7)


def tensors(loss, params):
    """g, H, and the third derivative as its contraction with two vectors."""
    g = sympy.Matrix([sympy.diff(loss, p) for p in params])
    hessian = g.jacobian(list(params))

    def third(u, v):
        return sum(
            (sympy.diff(hessian, p) * v * u[i] for i, p in enumerate(params)),
            sympy.zeros(len(params), 1),
        )

    return g, hessian, third


@pytest.mark.parametrize(
    ("loss", "order"),
    [
        pytest.param(LOSS, 3, marks=pytest.mark.slow),
        (IN_THREE, 2),
        pytest.param(E, 2, marks=pytest.mark.slow),
    ],
    ids=["2d", "3d", "model"],
)
def test_gradient_descent_in_tensors(loss, order):
    params = sorted(loss.free_symbols, key=str)
    g, hessian, third = tensors(loss, params)
    corrections = [
        g,
        hessian * g / 2,
        hessian**2 * g / 3 + third(g, g) / 12,
        hessian**3 * g / 4 + hessian * third(g, g) / 12 + third(g, hessian * g) / 12,
    ]
    field = modified_equation(methods.gradient_descent(), order).on(loss, params, h)
    for power, correction in enumerate(corrections[: order + 1]):
        field += h**power * correction
    assert vanishes(*field)


def test_heavy_ball_in_tensors():
    g, hessian, third = tensors(LOSS, (x, y))
    expected = -(
        g / (1 - beta)
        + h * (1 + beta) / (2 * (1 - beta) ** 3) * hessian * g
        + h**2
        * (
            (1 + 4 * beta + beta**2) / 3 * hessian**2 * g
            + (1 + 10 * beta + beta**2) / 12 * third(g, g)
        )
        / (1 - beta) ** 5
    )
    difference = modified_equation(methods.heavy_ball(beta), 2).on(LOSS, (x, y), h) - expected
    for at in ({x: sympy.Rational(2, 3), y: -sympy.Rational(5, 4)}, {x: 2, y: 3}, {x: -1, y: 1}):
        assert difference.subs(at).applyfunc(sympy.simplify) == sympy.zeros(2, 1)


def test_parameters_are_named_by_the_caller():
    """Other symbols are constants, and h is whatever the caller says."""
    eq = modified_equation(methods.gradient_descent(), 1)
    eta = sympy.Symbol("eta")
    assert eq.on(y * x**2 / 2, (x,), eta) == sympy.Matrix([-eta * x * y**2 / 2 - x * y])
    assert eq.on(y * x**2 / 2, (x,), 0.5) == sympy.Matrix([-x * y**2 / 4 - x * y])
    assert eq.on(y**2, (x,), eta) == sympy.zeros(1, 1)
    assert eq.on(sympy.Integer(5), (x, y), eta) == sympy.zeros(2, 1)


def test_losses_that_are_not_polynomials():
    """On E = log cosh x: g = t = tanh x, H = s = 1 - t^2, T = -2 t s."""
    (field,) = modified_equation(methods.gradient_descent(), 2).on(
        sympy.log(sympy.cosh(x)), (x,), h
    )
    t = sympy.Rational(1, 3)
    s = 1 - t**2
    expected = -t - h / 2 * s * t - h**2 * (s**2 * t / 3 - 2 * t * s * t**2 / 12)
    found = field.rewrite(sympy.exp).subs(x, sympy.log(2) / 2)  # tanh(log(2)/2) = 1/3
    assert sympy.simplify(found - expected) == 0


# Proposition A.4 of the paper is wrong from the third correction on.

COUNTEREXAMPLE = x**2 * y / 2
POINT = {x: 1, y: 1}


def corrections_by_the_proposition(loss, params, full_flow):
    """f_0 .. f_3 by the recursion as it is printed (A.9 to A.14).

    f_l = - sum_{n+k=l+1, n>=2} L_{n,k}/n!, where L_{n,k} is what d^(n-2)/dt^(n-2) grad |f|^2/2
    has at h^k. The derivative in time is read along the full modified flow, or along f_0 alone.
    """

    def grad(scalar):
        return sympy.Matrix([sympy.diff(scalar, p) for p in params])

    def along(direction, vector):
        return vector.jacobian(list(params)) * direction

    f = [-grad(loss)]
    for order in range(1, 4):
        half_norms = [grad(sum(f[i].dot(f[k - i]) for i in range(k + 1)) / 2) for k in range(order)]
        # time[k] is the coefficient of h^k of the n-th derivative of the solution
        time, found = half_norms, sympy.zeros(len(params), 1)
        for n in range(2, order + 2):
            found -= time[order + 1 - n] / sympy.factorial(n)
            if full_flow:
                time = [
                    sum((along(f[i], time[k - i]) for i in range(k + 1)), found * 0)
                    for k in range(order)
                ]
            else:
                time = [along(f[0], v) for v in time]
        f.append(found.applyfunc(sympy.expand))
    return f


def corrections_by_expansion(loss, params, order):
    """f_0 .. f_order from h F = log(1 + Delta) theta on the step itself: no recursion."""
    space = FormalSpace(params, order + 2)
    step = [p - space.h * g for p, g in zip(space.at, space.gradient(loss), strict=True)]
    total, difference = [space.ring(0)] * len(params), list(space.at)
    for j in range(1, order + 2):
        difference = [space.substitute(d, step) - d for d in difference]
        total = [
            t + d * sympy.QQ((-1) ** (j - 1), j) for t, d in zip(total, difference, strict=True)
        ]
    expressions = [sympy.expand(t.as_expr()) for t in total]
    return [sympy.Matrix([e.coeff(h, k + 1) for e in expressions]) for k in range(order + 1)]


def fractions(*texts):
    return sympy.Matrix([sympy.Rational(t) for t in texts])


TRUE = [
    fractions("-1", "-1/2"),
    fractions("-3/4", "-1/2"),
    fractions("-11/12", "-7/12"),
    fractions("-21/16", "-5/6"),
]


def test_counterexample_truth():
    expanded = corrections_by_expansion(COUNTEREXAMPLE, (x, y), 3)
    assert [f.subs(POINT) for f in expanded] == TRUE
    field = modified_equation(methods.gradient_descent(), 3).on(COUNTEREXAMPLE, (x, y), h)
    by_power = field.subs(POINT).expand()
    assert [by_power.applyfunc(lambda e, k=k: e.coeff(h, k)) for k in range(4)] == TRUE


@pytest.mark.parametrize(
    ("full_flow", "wrong"),
    [
        pytest.param(True, fractions("-31/24", "-7/8"), marks=pytest.mark.slow),
        (False, fractions("-85/48", "-29/24")),
    ],
    ids=["along the full flow", "along f0"],
)
def test_proposition_a4_fails_at_the_third_correction(full_flow, wrong):
    found = corrections_by_the_proposition(COUNTEREXAMPLE, (x, y), full_flow)
    at_point = [f.subs(POINT) for f in found]
    assert at_point[1] == TRUE[1]
    assert at_point[2] == TRUE[2]
    assert at_point[3] == wrong != TRUE[3]


def test_the_second_correction_has_no_symmetric_jacobian():
    """The reason: A.9 takes f' f for grad |f|^2/2."""
    field = modified_equation(methods.gradient_descent(), 2).on(COUNTEREXAMPLE, (x, y), h)
    second = field.expand().applyfunc(lambda e: e.coeff(h, 2))
    jacobian = second.jacobian([x, y])
    assert jacobian.subs(POINT) != jacobian.T.subs(POINT)


# Bad input

EQ = modified_equation(methods.gradient_descent(), 1)


@pytest.mark.parametrize("closed_form", [EQ.on, EQ.modified_loss().on], ids=["field", "loss"])
class TestBadInput:
    def test_text_is_not_run(self, closed_form, tmp_path):
        trap = tmp_path / "ran"
        text = f"__import__('pathlib').Path({str(trap)!r}).touch()"
        for args in ((text, (x,), h), (x**2, text, h), (x**2, (x, text), h), (x**2, (x,), text)):
            with pytest.raises(TypeError):
                closed_form(*args)
        assert not trap.exists()

    def test_loss(self, closed_form):
        with pytest.raises(
            TypeError, match=r"loss must be .* got the text 'x\*\*2'.*expressions\.parse"
        ):
            closed_form("x**2", (x,), h)
        for loss in (x > 1, sympy.Matrix([x]), None, [x], True):
            with pytest.raises(TypeError, match="loss must be a number or a sympy expression; got"):
                closed_form(loss, (x,), h)

    def test_params(self, closed_form):
        for params in ((), x, "x", (x, "y"), (1,), (x**2,), {x}, None):
            with pytest.raises(
                TypeError, match="params must be a sequence of one or more sympy symbols"
            ):
                closed_form(x**2, params, h)
        with pytest.raises(ValueError, match=r"each of params must stand once; got \(x, x\)"):
            closed_form(x**2, (x, x), h)

    def test_step(self, closed_form):
        for step in ("h", None, True, [h]):
            with pytest.raises(TypeError, match="h must be a number or a sympy expression; got"):
                closed_form(x**2, (x,), step)
