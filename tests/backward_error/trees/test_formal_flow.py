"""The flow of the derived equation is the method: exactly, on polynomials, to the order claimed.

Each test follows the flow of `eq.on` in truncated power series and holds it against the recurrence
that defines the method. An equation to h^p must leave nothing below h^(p+2).
"""

import pytest
import sympy

from igr.backward_error import methods, modified_equation
from tests.backward_error.trees.formal_flow import FormalSpace, h, random_polynomial
from tests.quick import quick

x, y, u = sympy.symbols("x y u")
z = methods.z

QUARTIC = random_polynomial((x, y), 4, seed=1)
SPARSE_QUINTIC = random_polynomial((x, y), 5, seed=2, terms=5)
IN_THREE = random_polynomial((x, y, u), 4, seed=3, terms=6)


def space_and_field(method, loss, order):
    coordinates = sorted(loss.free_symbols, key=str)
    space = FormalSpace(coordinates, precision=order + 2)
    field = modified_equation(method, order).on(loss, coordinates, h)
    return space, [space.read(f) for f in field]


@pytest.mark.parametrize("loss", [QUARTIC, SPARSE_QUINTIC, IN_THREE], ids=["4", "5", "4-in-3d"])
@pytest.mark.parametrize("order", [0, 1, 2, pytest.param(3, marks=pytest.mark.slow)])
def test_gradient_descent(loss, order):
    """exp(h F) theta = theta - h g(theta)."""
    space, field = space_and_field(methods.gradient_descent(), loss, order)
    step = [c - space.h * g for c, g in zip(space.at, space.gradient(loss), strict=True)]
    assert space.flow(field) == step


def test_gradient_descent_to_a_high_order():
    loss = x**4 / 4 - x**3 / 3 + x
    space, field = space_and_field(methods.gradient_descent(), loss, 7)
    (g,) = space.gradient(loss)
    assert space.flow(field) == [space.at[0] - space.h * g]


def test_the_claimed_order_is_all_there_is():
    """One power of h further the truncated equation and the method part."""
    coordinates, order = (x, y), 2
    space = FormalSpace(coordinates, precision=order + 3)
    eq = modified_equation(methods.gradient_descent(), order)
    flow = space.flow([space.read(f) for f in eq.on(QUARTIC, coordinates, h)])
    gradient = space.gradient(QUARTIC)
    for reached, c, g in zip(flow, space.at, gradient, strict=True):
        rest = reached - (c - space.h * g)
        assert rest
        assert {monomial[-1] for monomial in rest} == {order + 2}


MEMORIES = {
    "heavy ball": (
        methods.heavy_ball,
        # theta(h) - theta(0) = beta (theta(0) - theta(-h)) - h g(theta(0))
        lambda beta, back, g0, g1: beta * back - g0,
    ),
    "averaged momentum": (
        methods.ema_momentum,
        lambda beta, back, g0, g1: beta * back - (1 - beta) * g0,
    ),
    "Nesterov": (
        methods.nesterov,
        # d[n] = g[n] + beta m[n+1] and m[n+1] = beta m[n] + g[n] give
        # d[n] - beta d[n-1] = (1 + beta) g[n] - beta g[n-1].
        lambda beta, back, g0, g1: beta * back - (1 + beta) * g0 + beta * g1,
    ),
}


@pytest.mark.parametrize("name", quick(list(MEMORIES), "Nesterov"))
@pytest.mark.parametrize(
    ("loss", "order"),
    [
        pytest.param(QUARTIC, 3, marks=pytest.mark.slow),
        (SPARSE_QUINTIC, 2),
        pytest.param(IN_THREE, 2, marks=pytest.mark.slow),
    ],
    ids=["4", "5", "4-in-3d"],
)
def test_momentum(name, loss, order):
    """On the flow, one step forward is what the method makes of one step back."""
    make, rule = MEMORIES[name]
    beta = sympy.Rational(2, 5)
    space, field = space_and_field(make(beta), loss, order)
    ahead, behind = space.flow(field), space.flow(field, steps=-1)
    gradient = space.gradient(loss)
    before = [space.substitute(g, behind) for g in gradient]
    beta = space.ring(beta)
    for to, here, came, g0, g1 in zip(ahead, space.at, behind, gradient, before, strict=True):
        moved = rule(beta, here - came, space.h * g0, space.times(space.h, g1))
        assert to - here == moved


SUM = pytest.param((1, 1, 1, 1), marks=pytest.mark.slow)


@pytest.mark.parametrize("weights", [(2, -1), (1, 0, 3), (0, 1), SUM], ids=str)
def test_finite_memory(weights):
    """theta(h) = theta(0) - h sum_k w_k g(theta(-k h)) for a method given by its weights."""
    method = methods.linear_memory(sum(w * sympy.exp(-k * z) for k, w in enumerate(weights)))
    space, field = space_and_field(method, QUARTIC, 2)
    expected = list(space.at)
    for k, w in enumerate(weights):
        point = space.flow(field, steps=-k)
        for i, g in enumerate(space.gradient(QUARTIC)):
            expected[i] -= w * space.times(space.h, space.substitute(g, point))
    assert space.flow(field) == expected


def test_symbolic_beta_agrees_with_a_number():
    beta = sympy.Symbol("beta")
    for make in (methods.heavy_ball, methods.ema_momentum, methods.nesterov):
        at_number = modified_equation(make(sympy.Rational(3, 7)), 4)
        at_symbol = modified_equation(make(beta), 4)
        assert at_symbol.parameters == (beta,)
        substituted = at_symbol.subs({beta: sympy.Rational(3, 7)})
        assert substituted.coefficients == at_number.coefficients
        assert at_symbol.subs({"beta": 3 / 8}).coefficients == (
            modified_equation(make(0.375), 4).coefficients
        )


def test_floats_are_the_decimals_that_are_written():
    assert (
        modified_equation(methods.heavy_ball(0.9), 3).coefficients
        == modified_equation(methods.heavy_ball(sympy.Rational(9, 10)), 3).coefficients
    )


@pytest.mark.slow
def test_interpolating_the_step_gives_the_same_field():
    """h F = log(1 + Delta) theta = sum_j (-1)^(j-1)/j Delta^j theta, Delta u = u(step) - u."""
    order = 3
    space, field = space_and_field(methods.gradient_descent(), QUARTIC, order)
    step = [c - space.h * g for c, g in zip(space.at, space.gradient(QUARTIC), strict=True)]
    total, difference = [space.ring(0)] * 2, list(space.at)
    for j in range(1, order + 2):
        difference = [space.substitute(d, step) - d for d in difference]
        total = [
            t + d * sympy.QQ((-1) ** (j - 1), j) for t, d in zip(total, difference, strict=True)
        ]
    assert [space.times(space.h, f) for f in field] == total
