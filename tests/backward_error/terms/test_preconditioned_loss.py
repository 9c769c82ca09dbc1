"""The modified loss of adaptive methods: its formulas, by hand and against closed forms."""

import dataclasses

import pytest
import sympy
from sympy import Rational, Symbol, sqrt, symbols

from igr.backward_error import NotAGradientError, methods, modified_equation
from igr.backward_error.protocols import UnansweredError
from igr.backward_error.terms.algebra import THETA, G
from igr.backward_error.terms.certificate import SQUARE

X, Y, H = symbols("x y h")
E = X**2 * Y / 2 + X * Y**3 / 3 + sympy.exp(X - Y)


def test_adam_by_the_formula():
    """E + h (1 + b1)/(4 (1 - b1)) sum g_i^2/(sqrt(nu_i) + eps)."""
    b1, eps, nu = Symbol("b1"), Symbol("eps"), Symbol("nu")
    rule = methods.elementwise(
        Symbol("m") / (sqrt(nu) + eps),
        {"m": (G, (1 - b1) / (1 - b1 * sympy.exp(-methods.z)))},
        {"nu": (G**2, Rational(1, 1000))},
        parameters=[b1, eps],
    )
    modified = modified_equation(rule, 1).modified_loss()
    expected = H * (1 + b1) / (4 * (1 - b1)) * G**2 / (sqrt(nu) + eps)
    assert sympy.simplify(modified.penalty - expected) == 0
    assert sympy.simplify(modified.preconditioner.subs(H, 0) - 1 / (sqrt(nu) + eps)) == 0
    assert str(modified).startswith("E + h (b1 + 1)/(4 (1 - b1)) Σ g²/(eps + sqrt(ν)) + O(h²)")
    assert r"\textstyle\sum" in modified.latex()


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(methods.adam(0.5, 0.9, 0.01), marks=pytest.mark.slow),
        methods.adamw(0.5, 0.9, 0.01, weight_decay=0.3),
        pytest.param(methods.nadam(0.5, 0.9, 0.01), marks=pytest.mark.slow),
        methods.rmsprop(0.9, 0.05, keep=("nu",)),
        pytest.param(methods.adam(0.5, 0.8, eps=0, keep=()), marks=pytest.mark.slow),
        methods.sam(Rational(3, 2)),
        methods.elementwise(methods.g + methods.theta / 3, {}),
    ],
    ids=lambda method: method.name,
)
def test_the_field_is_minus_the_metric_times_the_gradient(method):
    """F + P grad[E~] + C theta falls like h^2, P and C diagonal, the rates per time held."""
    eq = modified_equation(method, 1)
    modified = eq.modified_loss()
    held = {s: Symbol(f"held_{s}") for s in eq.rates}
    contractions = {
        s: type(c)(tuple(v.xreplace(held) for v in c.vectors)) for s, c in eq.contractions.items()
    }
    field = dataclasses.replace(
        eq, field=tuple(f.xreplace(held) for f in eq.field), contractions=contractions, rates={}
    ).on(E, (X, Y), H)
    square = sympy.diff(E, X) ** 2 + sympy.diff(E, Y) ** 2
    loss = E + modified.of_length.xreplace({SQUARE: square})
    numbers = {X: Rational(3, 5), Y: Rational(-7, 10), methods.t: 3}
    numbers |= {Symbol("nu_x"): Rational(4, 5), Symbol("nu_y"): Rational(3, 10)}
    numbers |= {held[s]: rate for s, rate in eq.rates.items()}

    def local(p):
        found = {THETA: p, G: sympy.diff(E, p), **held}
        return found | {Symbol(y): Symbol(f"{y}_{p}") for y in eq.kept}

    loss += sum(modified.penalty.xreplace(local(p)) for p in (X, Y))
    for found, p in zip(field, (X, Y), strict=True):
        metric, decay = (e.xreplace(local(p)) for e in (modified.preconditioner, modified.decay))
        residual = found + metric * sympy.diff(loss, p) + decay * p
        large, small = (
            abs(sympy.N(residual.subs({**numbers, H: h}), 40))
            for h in (Rational(1, 1000), Rational(1, 2000))
        )
        assert small < 1e-4
        assert large < 1e-25 or 3.9 < large / small < 4.1


def test_where_there_is_no_loss_the_term_is_named():
    adam = modified_equation(methods.adam(keep=()), 1)
    with pytest.raises(NotAGradientError, match=r"no modified loss at h\^1.*the term .*H\[s₁\]"):
        adam.modified_loss()
    assert not adam.is_gradient()
    assert adam.is_gradient(0)
    whole, part, rest = adam.field[1], adam.gradient_part(), adam.obstruction()
    assert sympy.simplify(whole - part.field[1] - rest.field[1]) == 0
    assert rest.field[1] != 0
    with pytest.raises(NotAGradientError, match="is no factor of the gradient g"):
        modified_equation(methods.adam(keep=("mu", "nu")), 1).modified_loss()


def test_sign_descent_with_momenta_follows_a_one_norm():
    """With eps = 0: b1/(1 - b1) - b2/(1 - b2) times |g|_1, and nothing where b1 = b2."""
    b1, b2 = Rational(1, 2), Rational(4, 5)
    modified = modified_equation(methods.adam(b1, b2, eps=0, keep=()), 1).modified_loss()
    slope = Symbol("slope", positive=True)
    weight = b1 / (1 - b1) - b2 / (1 - b2)
    assert sympy.simplify(modified.penalty.xreplace({G: slope}) - weight * H * slope) == 0
    same = modified_equation(methods.adam(b1, b1, eps=0, keep=()), 1).modified_loss()
    assert sympy.simplify(same.penalty.xreplace({G: slope})) == 0


def test_sam_follows_the_length_of_the_gradient():
    """E + h (|g|^2/4 + r |g|)."""
    r = Symbol("r")
    modified = modified_equation(methods.sam(r), 1).modified_loss()
    square = sympy.diff(E, X) ** 2 + sympy.diff(E, Y) ** 2
    expected = E + H * (square / 4 + r * sqrt(square))
    assert sympy.simplify(modified.on(E, (X, Y), H) - expected) == 0
    assert str(modified) == "E + h (1/4 |g|² + r |g|) + O(h²)"


def test_beyond_the_first_order_nothing_is_claimed():
    second = modified_equation(methods.signsgd(1), 2)
    for ask in (second.modified_loss, second.is_gradient, second.gradient_part):
        with pytest.raises(UnansweredError, match=r"up to h\^1; got order 2"):
            ask()
    assert second.is_gradient(0)
