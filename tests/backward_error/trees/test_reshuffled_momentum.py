"""Reshuffled SGD with momentum against every order of its batches.

On quadratic losses an epoch is an affine map of params and momentum, and orders of different epochs
are independent: the mean over all orders of all epochs is a power of the mean map. Its two slow
eigenvalues and its fixed point say what the mean follows; nothing here knows of trees.
"""

from itertools import permutations

import numpy as np
import pytest
import sympy

from igr.backward_error import methods, modified_equation

RANDOM = np.random.default_rng(3)
HESSIANS = [a @ a.T + np.eye(2) / 2 for a in RANDOM.normal(size=(4, 2, 2))]
LINEAR = list(RANDOM.normal(size=(4, 2)))


def mean_epoch(h, m, beta, nesterov):
    """The mean over all orders of the map of (params, momentum, 1) that an epoch is."""
    total, steps = np.zeros((5, 5)), []
    for a, b in zip(HESSIANS[:m], LINEAR[:m], strict=True):
        v = np.hstack([a, beta * np.eye(2), b[:, None]])  # v <- beta v + A x + b
        direction = v.copy()
        if nesterov:
            direction = beta * v + np.hstack([a, np.zeros((2, 2)), b[:, None]])
        step = np.eye(5)
        step[2:4] = v
        step[:2] -= h * direction
        steps.append(step)
    orders = list(permutations(range(m)))
    for order in orders:
        epoch = np.eye(5)
        for k in order:
            epoch = steps[k] @ epoch
        total += epoch / len(orders)
    return total


def predicted(h, m, beta, nesterov, shared=True):
    """Eigenvalues and fixed point of the equation, which is linear, from its coefficients."""
    equation = modified_equation(
        methods.reshuffled_sgd(m, momentum=sympy.nsimplify(beta), nesterov=nesterov), 1
    )
    w, mean, own = (float(equation.coefficient(t)) for t in ((0,), (0, (0,)), (1, (1,))))
    if not shared:
        mean, own = mean + own, 0.0
    a, b = np.mean(HESSIANS[:m], 0), np.mean(LINEAR[:m], 0)
    squares = np.mean([x @ x for x in HESSIANS[:m]], 0)
    products = np.mean([x @ y for x, y in zip(HESSIANS[:m], LINEAR[:m], strict=True)], 0)
    # F(t) over f = -g: f'f is H g for the tree of two vertices.
    matrix = -w * a + h * (mean * a @ a + own * squares)
    constant = -w * b + h * (mean * a @ b + own * products)
    return np.sort(np.linalg.eigvals(matrix).real), -np.linalg.solve(matrix, constant)


def apart(h, m, beta, nesterov, shared=True):
    """How far rates and fixed point are from those of the mean over all orders."""
    epoch = mean_epoch(h, m, beta, nesterov)
    moving = np.linalg.eigvals(epoch[:4, :4])
    slow = np.sort(np.log(np.sort(moving.real)[-2:]) / (m * h))
    fixed = np.linalg.solve(np.eye(4) - epoch[:4, :4], epoch[:4, 4])[:2]
    rates, at = predicted(h, m, beta, nesterov, shared)
    return np.array([np.abs(rates - slow).max(), np.abs(at - fixed).max()])


@pytest.mark.parametrize("m", [1, 2, 3, 4])
@pytest.mark.parametrize(("beta", "nesterov"), [(0.5, False), (0.8, False), (0.5, True)])
def test_the_mean_over_all_orders(m, beta, nesterov):
    large, small = (apart(h, m, beta, nesterov) for h in (5e-5, 2.5e-5))
    slopes = np.log2(large / small)
    if m == 1:  # there is one fixed point, that of the loss
        assert large[1] < 1e-8
        slopes = slopes[:1]
    assert np.all(np.abs(slopes - 2) < 0.1), (slopes, large)


def test_without_the_term_of_the_batches_it_is_wrong_at_h():
    large, small = (apart(h, 3, 0.5, False, shared=False) for h in (5e-5, 2.5e-5))
    assert np.all(np.abs(np.log2(large / small) - 1) < 0.1)


def test_without_momentum_it_is_reshuffled_sgd():
    tiny = sympy.Rational(1, 10**12)
    near = modified_equation(methods.reshuffled_sgd(3, momentum=tiny), 1)
    plain = modified_equation(methods.reshuffled_sgd(3), 1)
    for tree in ((0,), (0, (0,)), (1, (1,))):
        assert abs(float(near.coefficient(tree)) - float(plain.coefficient(tree))) < 1e-11


def test_bad_input():
    with pytest.raises(ValueError, match="with momentum num_batches must be an integer; got m"):
        methods.reshuffled_sgd(sympy.Symbol("m"), momentum=0.9)
    with pytest.raises(
        ValueError, match="momentum must be a number from 0 up to but not including 1"
    ):
        methods.reshuffled_sgd(3, momentum=1.0)
    with pytest.raises(ValueError, match=r"known up to h\^1; got order 2"):
        modified_equation(methods.reshuffled_sgd(3, momentum=0.9), 2)
