"""Tableaux against equations derived by hand, and against the logarithm on a quadratic."""

from fractions import Fraction

import pytest
import sympy

from igr.backward_error import methods, modified_equation
from igr.backward_error.stability import convergence_radius, stability_limit

HALF = Fraction(1, 2)
MIDPOINT = methods.runge_kutta([[HALF]], [1], name="implicit midpoint")
RK4 = methods.runge_kutta(
    [[0, 0, 0, 0], [0.5, 0, 0, 0], [0, 0.5, 0, 0], [0, 0, 1, 0]],
    [Fraction(1, 6), Fraction(1, 3), Fraction(1, 3), Fraction(1, 6)],
)
HEUN = methods.runge_kutta([[0, 0], [1, 0]], [0.5, 0.5])


def test_euler_is_gradient_descent():
    euler = modified_equation(methods.runge_kutta([[0]], [1]), 6)
    descent = modified_equation(methods.gradient_descent(), 6)
    assert euler.coefficients == descent.coefficients


def test_implicit_midpoint_by_hand():
    """f - h^2/24 f''(f, f) + h^2/12 f'f'f, Hairer, Lubich and Wanner."""
    equation = modified_equation(MIDPOINT, 2)
    assert equation.coefficients == {
        (): 1,
        ((), ()): sympy.Rational(-1, 24),
        (((),),): sympy.Rational(1, 12),
    }


def test_no_terms_below_the_order_of_the_method():
    assert set(modified_equation(RK4, 3).coefficients) == {()}
    assert len(modified_equation(RK4, 4).coefficients) > 1
    assert set(modified_equation(HEUN, 1).coefficients) == {()}
    assert len(modified_equation(HEUN, 2).coefficients) > 1


def test_usam_by_hand():
    """theta - h g(theta + rho h g) = theta - h g - rho h^2 H g - ..: F1 = -(1/2 + rho) H g."""
    rho = sympy.Symbol("rho", positive=True)
    equation = modified_equation(methods.usam(rho), 1)
    assert sympy.simplify(equation.coefficient(((),)) + sympy.Rational(1, 2) + rho) == 0
    assert equation.modified_loss().coefficients[((),)].equals((1 + 2 * rho) / 4)


@pytest.mark.parametrize("method", [MIDPOINT, RK4, HEUN, methods.usam(2)], ids=lambda m: m.name)
def test_field_on_a_quadratic_is_the_logarithm_of_the_stability_function(method):
    x, h, curvature = sympy.symbols("x h lambda")
    order = 5
    field = modified_equation(method, order).on(curvature * x**2 / 2, (x,), h)[0]
    R = method.stability_function(x).subs(x, h * curvature)
    expected = sympy.series(sympy.log(R), h, 0, order + 2).removeO() / h * x
    assert sympy.expand(field - expected) == 0


def test_limits_on_a_quadratic():
    assert stability_limit(RK4) == pytest.approx(2.785293563, rel=1e-8)
    assert stability_limit(HEUN) == pytest.approx(2)
    assert stability_limit(MIDPOINT) == float("inf")
    assert convergence_radius(MIDPOINT) == pytest.approx(2)  # the zero of (1 - x/2)/(1 + x/2)


@pytest.mark.parametrize(
    ("A", "b", "message"),
    [
        ([[0, 0]], [1], "A must be square with as many rows as b has weights"),
        ([[0, 0], [1]], [0.5, 0.5], "A must be square"),
        ([], [], "A must be square"),
        ([[0]], [0.9], "not consistent: b must sum to 1; got 9/10"),
    ],
)
def test_bad_tableau(A, b, message):
    with pytest.raises(ValueError, match=message):
        methods.runge_kutta(A, b)


def test_bad_rho():
    with pytest.raises(ValueError, match="rho must be a number of at least 0"):
        methods.usam(-0.1)
    with pytest.raises(TypeError, match="rho"):
        methods.usam("large")
