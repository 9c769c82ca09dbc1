"""Epochs of SGD against their definition: every order of the batches, in exact arithmetic.

The epoch of each permutation is worked out as a truncated power series in h over polynomials with
rational coefficients; nothing of that knows trees or averages. The flow of the equation over the
time m h must be the mean of all m! of them, or the one of a fixed order.
"""

import pickle

import numpy as np
import pytest
import sympy

from igr.backward_error import NotAGradientError, methods, modified_equation
from igr.backward_error.trees.epochs import epoch as epoch_series
from igr.backward_error.trees.epochs import mean_over_orders
from igr.backward_error.trees.series import logarithm
from tests.backward_error.trees.formal_flow import FormalSpace, h, random_polynomial, vanishes

x, y = sympy.symbols("x y")
m = sympy.Symbol("m")
LOSSES = [random_polynomial((x, y), 3, seed=k, terms=4) for k in range(5)]


def epoch_by_hand(space, losses, order):
    """One Euler step after the other."""
    point = list(space.at)
    for k in order:
        slopes = [space.substitute(g, point) for g in space.gradient(losses[k])]
        point = [p - space.times(space.h, s) for p, s in zip(point, slopes, strict=True)]
    return point


def mean_epoch_by_hand(space, losses):
    """The mean over all permutations; those that begin alike share their first steps."""
    gradients = [space.gradient(loss) for loss in losses]
    total, count = [space.ring(0)] * len(space.at), 0

    def visit(point, left):
        nonlocal total, count
        if not left:
            total = [t + p for t, p in zip(total, point, strict=True)]
            count += 1
        for k in left:
            slopes = [space.substitute(g, point) for g in gradients[k]]
            visit(
                [p - space.times(space.h, s) for p, s in zip(point, slopes, strict=True)],
                left - {k},
            )

    visit(list(space.at), frozenset(range(len(losses))))
    return [t * sympy.QQ(1, count) for t in total]


def flow_of(method, losses, order, precision=None):
    space = FormalSpace((x, y), precision=precision or order + 2)
    field = modified_equation(method, order).on(losses, (x, y), h)
    return space, space.flow([space.read(f) for f in field], steps=len(losses))


@pytest.mark.parametrize(
    "batches", [1, 2, 3, *(pytest.param(m, marks=pytest.mark.slow) for m in (4, 5))]
)
def test_the_mean_over_all_orders(batches):
    losses = LOSSES[:batches]
    space, flow = flow_of(methods.reshuffled_sgd(batches), losses, order=2)
    assert flow == mean_epoch_by_hand(space, losses)


@pytest.mark.parametrize("order", [0, 1, pytest.param(2, marks=pytest.mark.slow)])
def test_one_power_of_h_further_the_mean_and_the_flow_part(order):
    losses = LOSSES[:3]
    space, flow = flow_of(methods.reshuffled_sgd(3), losses, order, precision=order + 3)
    for reached, mean in zip(flow, mean_epoch_by_hand(space, losses), strict=True):
        assert {monomial[-1] for monomial in reached - mean} == {order + 2}


@pytest.mark.parametrize(
    ("batches", "order"),
    [((0,), 3), pytest.param((0, 1), 3, marks=pytest.mark.slow), ((2, 0, 1, 3), 2)],
    ids=str,
)
def test_a_fixed_order(batches, order):
    losses = LOSSES[: len(batches)]
    space, flow = flow_of(methods.cyclic_sgd(batches), losses, order)
    assert flow == epoch_by_hand(space, losses, batches)


def test_the_two_formulas_at_first_order():
    """-(1/2m) sum_k H_k g_k in random order; (1/m) sum_{j<k} H_k g_j - (m/2) H g in a fixed one."""
    losses = LOSSES[:4]
    gradients = [sympy.Matrix([sympy.diff(loss, v) for v in (x, y)]) for loss in losses]
    hessians = [g.jacobian((x, y)) for g in gradients]
    g, hessian = sum(gradients, sympy.zeros(2, 1)) / 4, sum(hessians, sympy.zeros(2, 2)) / 4

    random = modified_equation(methods.reshuffled_sgd(4), 1).on(losses, (x, y), h)
    own = sum((hessians[k] * gradients[k] for k in range(4)), sympy.zeros(2, 1))
    assert vanishes(*(random + g + h / 8 * own))

    cyclic = modified_equation(methods.cyclic_sgd(4), 1).on(losses, (x, y), h)
    pairs = sum((hessians[k] * gradients[j] for k in range(4) for j in range(k)), sympy.zeros(2, 1))
    assert vanishes(*(cyclic + g - h * (pairs / 4 - 2 * hessian * g)))


def test_the_modified_loss():
    """L + h/(4m) sum_k |grad L_k|^2, and its gradient flow is the field."""
    losses = LOSSES[:3]
    equation = modified_equation(methods.reshuffled_sgd(3), 1)
    modified = equation.modified_loss().on(losses, (x, y), h)
    squares = sum(sympy.diff(loss, v) ** 2 for loss in losses for v in (x, y))
    assert vanishes(modified - sum(losses) / 3 - h / 12 * squares)
    gradient = sympy.Matrix([sympy.diff(modified, v) for v in (x, y)])
    assert vanishes(*(equation.on(losses, (x, y), h) + gradient))


def test_the_mean_of_orders_is_the_mean_of_their_fields_up_to_h2():
    """exp(h F) is linear in F beyond its leading term until F_1 meets itself, at h^3."""
    step = epoch_series(3)
    assert mean_over_orders(logarithm(step, 3)) == logarithm(mean_over_orders(step), 3)


def test_one_batch_is_gradient_descent():
    for method in (methods.reshuffled_sgd(1), methods.cyclic_sgd(1)):
        field = modified_equation(method, 2).on(LOSSES[:1], (x, y), h)
        expected = modified_equation(methods.gradient_descent(), 2).on(LOSSES[0], (x, y), h)
        assert vanishes(*(field - expected))
    assert (
        str(modified_equation(methods.cyclic_sgd(1), 1).modified_loss()) == "E + h/4 |g|² + O(h²)"
    )


def test_a_symbolic_number_of_batches():
    symbolic = modified_equation(methods.reshuffled_sgd(m), 2)
    assert symbolic.parameters == (m,)
    four = symbolic.subs({"m": 4})
    assert four.coefficients == modified_equation(methods.reshuffled_sgd(4), 2).coefficients
    assert four.name == "reshuffled SGD (num_batches = 4)"
    assert symbolic.coefficient((0, (1, (1,)))) == m / 12
    assert symbolic.coefficient((1, (1, (1,)))) == sympy.Rational(1, 3)
    assert symbolic.coefficient((1, (1,))) == -sympy.Rational(1, 2)
    one = modified_equation(methods.cyclic_sgd(m), 2).subs({m: 1})
    assert one.coefficients == modified_equation(methods.cyclic_sgd(1), 2).coefficients
    with pytest.raises(ValueError, match="integer of at least 1"):
        symbolic.subs({m: 2.5})
    with pytest.raises(ValueError, match=r"open symbol m; give it a number: eq.subs\(\{'m': 2\}\)"):
        symbolic.on(LOSSES[:2], (x, y), h)


def test_pickles_and_hashes():
    for method in (methods.reshuffled_sgd(np.int64(3)), methods.cyclic_sgd(m)):
        equation = modified_equation(method, 1)
        again = pickle.loads(pickle.dumps(equation))
        assert again == equation
        assert hash(again) == hash(equation)
        assert str(again) == str(equation)


def test_certificates():
    random = modified_equation(methods.reshuffled_sgd(m), 2)
    assert random.is_gradient(1)
    assert not random.is_gradient()
    with pytest.raises(NotAGradientError, match=r"follows no modified loss at h\^2") as caught:
        random.modified_loss()
    assert caught.value.order == 2
    fixed = modified_equation(methods.cyclic_sgd(m), 1)
    assert fixed.is_gradient(0)
    assert not fixed.is_gradient(1)
    with pytest.raises(NotAGradientError, match=r"H. g.; j<k"):
        fixed.modified_loss()


def test_print():
    random, fixed = methods.reshuffled_sgd(m), methods.cyclic_sgd(m)
    assert str(modified_equation(random, 1)) == "θ' = -g - h/2 ⟨Hₖ gₖ⟩ + O(h²)"
    assert modified_equation(random, 1).latex() == (
        r"\dot\theta = -g - \frac{h}{2} \langle H_k g_k \rangle + O(h^{2})"
    )
    assert modified_equation(random, 1).modified_loss().latex() == (
        r"E + \frac{h}{4} \langle \lvert g_k\rvert^{2} \rangle + O(h^{2})"
    )
    assert "m² ⟨Hₖ Hⱼ gᵢ; i<j, j<k⟩" in str(modified_equation(fixed, 2))


def test_what_is_not_a_number_of_batches():
    for bad in (0, -1, 2.5, "3", True):
        with pytest.raises((ValueError, TypeError), match="num_batches"):
            methods.reshuffled_sgd(bad)
    for bad in ((), (0, 2), (1, 1), [1, 2]):
        with pytest.raises(ValueError, match=r"a permutation of 0 \.\. m - 1"):
            methods.cyclic_sgd(bad)


def test_the_mean_has_no_equation_of_its_own_at_h3():
    with pytest.raises(ValueError, match="the spread of the iterates"):
        modified_equation(methods.reshuffled_sgd(3), 3)


def test_wrong_number_of_losses_and_trees():
    equation = modified_equation(methods.reshuffled_sgd(3), 1)
    with pytest.raises(ValueError, match="losses must be 3 in number; got 2"):
        equation.on(LOSSES[:2], (x, y), h)
    with pytest.raises(ValueError, match="beyond the order 1"):
        equation.coefficient((0, (0, (0,))))
    with pytest.raises(TypeError, match="mark"):
        equation.coefficient(((), ()))
