"""The first steps of a method with memory: formulas by hand, and the real run."""

import jax
import numpy as np
import optax
import pytest

import igr
from igr.backward_error import trees
from igr.backward_error.start_up import initial_shift, starting_fields

TALL = trees.intern(((),))


@pytest.mark.parametrize("beta", [0.5, 0.9])
def test_fields_of_heavy_ball_from_rest(beta):
    """F0(n) = -w_n g, F1(n) = -[k_n + w_n^2/2] H g with k_n = b (k_(n-1) + w_(n-1) w'_n)."""
    k = 0.0
    for n, field in enumerate(starting_fields(igr.methods.heavy_ball(beta), 1, 30)):
        w = (1 - beta ** (n + 1)) / (1 - beta)
        if n:
            before = (1 - beta**n) / (1 - beta)
            k = beta * (k + before**2)
        assert field[trees.LEAF] == pytest.approx(w, rel=1e-13)
        # H g = f'(f) with the sign turned twice: over f = -g the weight is that of -H g.
        assert field[TALL] == pytest.approx(-(k + w**2 / 2), rel=1e-12)


def test_a_method_without_memory_has_its_own_field_at_once():
    first, second = starting_fields(igr.methods.gradient_descent(), 3, 2)
    equation = igr.modified_equation(igr.methods.gradient_descent(), 3)
    for tree, coefficient in equation.coefficients.items():
        t = trees.intern(tree)
        assert first[t] == pytest.approx(float(coefficient * trees.sigma(t)))
        assert second[t] == pytest.approx(first[t])


def test_shift_on_a_quadratic_is_that_of_the_recurrence():
    """E = x^2/2: a run of heavy ball tends to c zeta^n x_0, and the shift is (c - 1) x_0."""
    beta, h = 0.5, 0.01
    roots = np.roots([1, -(1 + beta - h), beta])  # zeta^2 - (1 + b - h) zeta + b
    # x_0 = 1 and, from a memory of zeros, x_1 = 1 - h.
    slow, fast = max(roots), min(roots)
    c = (1 - h - fast) / (slow - fast)
    order = 3
    shift = initial_shift(igr.methods.heavy_ball(beta), order, 100)
    tall = {1: trees.LEAF}
    for n in range(2, order + 2):
        tall[n] = trees.index((tall[n - 1],))
    # F(t) of a tall tree with n vertices over f = -x is (-1)^n x; every other tree gives 0.
    series = sum(h**n * shift[t] / trees.sigma(t) * (-1) ** n for n, t in tall.items())
    radius = (1 - np.sqrt(beta)) ** 2
    assert series == pytest.approx(c - 1, rel=(h / radius) ** (order + 1))
    assert abs(series - (c - 1)) > 1e-12  # the series ends


@pytest.mark.slow
@pytest.mark.parametrize("start_up", ["weights", pytest.param("shift", marks=pytest.mark.slow)])
def test_global_order_from_a_cold_start(polynomial, start_up):
    """Without a start-up every order is O(h); with one the flow of order p is h^(p+1) close."""
    hs = np.array([0.008, 0.0025])
    errors = {0: [], 1: []}
    cold = []
    for h in hs:
        options = {"record_every": 1000, "sharpness": False, "optimizer": optax.sgd(h, 0.5)}
        call = (*polynomial, h, round(0.2 / h), (0, 1), igr.methods.heavy_ball(0.5))
        result = igr.compare(*call, start_up=start_up, **options)
        for order in errors:
            errors[order].append(result.distance[order][-1])
        if start_up == "shift":
            cold.append(igr.compare(*call, start_up="cold", **options).distance[1][-1])
    assert start_up in result.start_up.replace("shifted", "shift")
    for order, found in errors.items():
        slope = np.polyfit(np.log(hs), np.log(found), 1)[0]
        assert slope > order + 1 - 0.1, (order, found)
    if cold:
        assert abs(np.polyfit(np.log(hs), np.log(cold), 1)[0] - 1) < 0.1, cold


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start_up": "warm"}, "start_up must be 'burn-in', .* or 'cold'; got 'warm'"),
        ({"start_up": "shift", "burn_in": 3}, "burn_in = 3 is for start_up = 'burn-in'"),
        (
            {"start_up": "weights", "method": igr.methods.adam()},
            "for linear methods with memory; Adam",
        ),
    ],
)
def test_bad_input(polynomial, options, message):
    with pytest.raises(ValueError, match=message):
        igr.compare(*polynomial, 0.01, 3, **options)


def test_what_has_no_memory_of_gradients_alone_is_refused():
    with pytest.raises(ValueError, match="use a burn-in"):
        starting_fields(igr.methods.heavy_ball(0.5, weight_decay=0.1), 1, 3)


@pytest.mark.slow
def test_records_of_the_weights_meet_those_of_the_flow(polynomial):
    """Records before and after the memory has filled are one trajectory."""
    result = igr.compare(
        *polynomial,
        0.002,
        60,
        (1,),
        igr.methods.heavy_ball(0.5),
        start_up="weights",
        record_every=10,
        sharpness=False,
    )
    assert result.start_up == "step-dependent weights for 27 steps"
    steps = jax.tree.map(lambda x: np.abs(np.diff(x)), result.flows[1])
    for jumps in steps.values():
        assert jumps.max() < 3 * np.median(jumps)
    assert (result.distance[1][1:] < 0.02 * result.travelled[1:]).all()
