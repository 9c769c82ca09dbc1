"""Series over trees: the Lie derivative, exp and log, against grafting and the density."""

from fractions import Fraction
from math import factorial
from random import Random

import pytest

from igr.backward_error import methods, modified_equation, trees
from igr.backward_error.trees import series

VERTICES = 7


def random_series(seed, vertices=VERTICES):
    random = Random(seed)
    return {
        t: Fraction(random.randint(-9, 9), random.randint(1, 9))
        for n in range(1, vertices + 1)
        for t in trees.of_order(n)
    }


def coefficients(weights):
    """c(t) = b(t)/sigma(t): the factors of F(t) itself."""
    return {t: Fraction(b) / trees.sigma(t) for t, b in weights.items() if b}


@pytest.mark.parametrize("seed", range(3))
def test_lie_derivative_is_dual_to_grafting(seed):
    """D_F F(trunk) along F(branch) grafts the branch to each vertex of the trunk."""
    of, along = random_series(seed), random_series(seed + 100)
    expected = {}
    for trunk, a in coefficients(of).items():
        for branch, f in coefficients(along).items():
            if trees.size(trunk) + trees.size(branch) <= VERTICES:
                grafted = trees.graft(trees.as_tuple(branch), trees.as_tuple(trunk))
                for tree, count in grafted.items():
                    t = trees.intern(tree)
                    expected[t] = expected.get(t, 0) + count * a * f
    found = coefficients(series.lie_derivative(of, along, VERTICES))
    assert found == {t: c for t, c in expected.items() if c}


@pytest.mark.parametrize("seed", range(3))
def test_exp_and_log_are_inverse(seed):
    field = random_series(seed, 6)
    assert series.logarithm(series.exponential(field, 6), 6) == {
        t: w for t, w in field.items() if w
    }
    step = random_series(seed + 50, 6)
    assert series.exponential(series.logarithm(step, 6), 6) == {t: w for t, w in step.items() if w}


def test_exp_of_the_exact_flow_has_the_weights_of_butcher():
    """exp(h f): 1/gamma(t) (Hairer, Lubich and Wanner, III.1.1)."""
    flow = series.exponential({trees.LEAF: Fraction(1)}, 8)
    for n in range(1, 9):
        for t in trees.of_order(n):
            assert flow[t] == Fraction(1, trees.density(trees.as_tuple(t)))


def test_flows_of_one_field_compose():
    """exp(2 h F) is exp(h F) after itself: the weights of one field scaled in time."""
    field = random_series(7, 5)
    doubled = {t: 2 * w for t, w in field.items()}
    expected = {}
    term, j = dict(field), 1
    while term:
        for t, w in term.items():
            expected[t] = expected.get(t, 0) + 2**j * w / factorial(j)
        term, j = series.lie_derivative(term, field, 5), j + 1
    assert series.exponential(doubled, 5) == {t: w for t, w in expected.items() if w}


def test_log_of_explicit_euler_is_the_modified_equation():
    field = series.logarithm({trees.LEAF: Fraction(1)}, 8)
    eq = modified_equation(methods.gradient_descent(), order=7)
    found = {t: Fraction(int(b.numerator), int(b.denominator)) for t, b in eq.weights.items()}
    assert found == field
