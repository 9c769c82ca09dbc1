"""Sharpness-aware minimisation: by hand, on a quadratic, and from a tableau."""

import pytest
import sympy

from igr.backward_error import NotAGradientError, methods, modified_equation

r, rho, h, lam = sympy.symbols("r rho h lambda", positive=True)
X, Y = sympy.symbols("x y")
E = X**4 * Y / 3 + X**2 * Y**3 + X * Y - Y**5 / 5 + X**2
AT = {X: sympy.Rational(7, 10), Y: sympy.Rational(-2, 5), h: sympy.Rational(1, 7)}


def length():
    return sympy.sqrt(sympy.diff(E, X) ** 2 + sympy.diff(E, Y) ** 2)


def test_first_order_is_the_slope_of_a_loss_with_the_length_of_the_gradient():
    """E + h (|g|^2/4 + r |g|)."""
    found = modified_equation(methods.sam(r), 1).on(E, (X, Y), h)
    loss = E + h * (length() ** 2 / 4 + r * length())
    for component, p in zip(found, (X, Y), strict=True):
        apart = component + sympy.diff(loss, p)
        assert abs(sympy.N(apart.subs({**AT, r: sympy.Rational(3, 10)}), 30)) < 1e-25


@pytest.mark.parametrize("order", [3])
def test_on_a_parabola_it_descends_to_a_point_short_of_the_minimum(order):
    """x <- x - h lambda (x + r h) where x > 0: the flow log(1 - h lambda)/h of x + r h."""
    x = sympy.Symbol("x", positive=True)
    (found,) = modified_equation(methods.sam(r), order).on(lam * x**2 / 2, (x,), h)
    expected = sympy.series(sympy.log(1 - h * lam), h, 0, order + 3).removeO() / h * (x + r * h)
    for k in range(order + 1):
        apart = (sympy.expand(sympy.simplify(found)) - sympy.expand(expected)).coeff(h, k)
        assert sympy.simplify(apart) == 0


@pytest.mark.slow
def test_without_its_length_it_is_the_tableau():
    """L^(k+1)[g, .., g] r^k/k! against two stages, through the term algebra and through trees."""
    from igr.backward_error.methods.sharpness_aware import SharpnessAware

    class Unnormalised(SharpnessAware):
        def rule(self, algebra, order):
            from igr.backward_error.terms.algebra import G

            terms = [G]
            for k in range(1, order + 1):
                terms.append(self.ratio**k / sympy.factorial(k) * algebra.contract((G,) * k))
            return terms

    ratio = sympy.Rational(2, 3)
    terms = Unnormalised("USAM", ratio).equation(3).on(E, (X, Y), h)
    trees = modified_equation(methods.usam(ratio), 3).on(E, (X, Y), h)
    for a, b in zip(terms, trees, strict=True):
        assert abs(sympy.N((a - b).subs(AT), 30)) < 1e-24


@pytest.mark.parametrize("make", [methods.sam, methods.usam])
def test_a_fixed_ascent_follows_no_loss(make):
    """Euler's method on g at theta + rho .., in closed form: -1/2 J f for the first correction."""
    equation = modified_equation(make(rho, "fixed"), 1)
    far = rho / length() if make is methods.sam else rho
    slope = [sympy.diff(E, p) for p in (X, Y)]
    there = {p: p + far * s for p, s in zip((X, Y), slope, strict=True)}
    f = -sympy.Matrix([s.subs(there, simultaneous=True) for s in slope])
    expected = f - h / 2 * f.jacobian((X, Y)) * f
    numbers = {**AT, rho: sympy.Rational(1, 20)}
    for a, b in zip(equation.on(E, (X, Y), h), expected, strict=True):
        assert abs(sympy.N((a - b).subs(numbers), 30)) < 1e-24
    assert not equation.is_gradient(0)
    with pytest.raises(NotAGradientError, match="taken at a point uphill") as caught:
        equation.modified_loss(0)
    assert caught.value.order == 0
    with pytest.raises(ValueError, match="has no gradient part"):
        equation.gradient_part()
    assert equation.parameters == (rho,)
    assert str(equation.subs({"rho": 0.05})).endswith(
        "with g(θ) = ∇E(θ + 1/20 ∇E/|∇E|)" if make is methods.sam else "with g(θ) = ∇E(θ + 1/20 ∇E)"
    )


@pytest.mark.parametrize("make", [methods.sam, methods.usam])
def test_bad_input(make):
    with pytest.raises(ValueError, match="rho must be a number of at least 0"):
        make(-0.1)
    with pytest.raises(
        ValueError, match=r"scale must be 'step' \(rho times h\) or 'fixed'; got 'both'"
    ):
        make(0.1, "both")
    with pytest.raises(TypeError, match="rho"):
        make("large")


def test_no_ascent_is_gradient_descent():
    plain = modified_equation(methods.gradient_descent(), 3).coefficients
    for method in (methods.sam(0), methods.sam(0, "fixed"), methods.usam(0)):
        assert modified_equation(method, 3).coefficients == plain
