"""Orders observed in float64: the slope of the one-step error is p + 2."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sympy

import igr
from igr.backward_error.stability import convergence_radius, slowest_memory, stability_limit

GD = igr.methods.gradient_descent()


# One combination of each kind is enough to see that something broke, all of them to see what.
QUICK = {("polynomial", p, "derived") for p in (1, 2)} | {
    ("polynomial", 2, "interpolating"),
}


@pytest.mark.parametrize(
    ("case", "order", "field"),
    [
        pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)
        for case in itertools.product(
            ("polynomial", "tanh_network"), range(5), ("derived", "interpolating")
        )
    ],
)
def test_gradient_descent(case, order, field, request):
    value_fn, params = request.getfixturevalue(case)
    slope = igr.observed_order(GD, value_fn, params, order, field=field)
    assert abs(slope - (order + 2)) < 0.1, (slope, slope.hs, slope.errors)
    assert not slope.at_rounding.any()


@pytest.mark.parametrize("order", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "method",
    [
        pytest.param(igr.methods.heavy_ball(0.9), id="heavy ball"),
        pytest.param(igr.methods.nesterov(0.7), id="Nesterov", marks=pytest.mark.slow),
    ],
)
def test_methods_with_memory(polynomial, method, order):
    slope = igr.observed_order(method, *polynomial, order)
    assert abs(slope - (order + 2)) < 0.1, (slope, slope.hs, slope.errors)


@pytest.mark.slow
@pytest.mark.parametrize("order", range(5))
@pytest.mark.parametrize("beta", [0.5, 0.7, 0.9])
@pytest.mark.parametrize("kind", ["heavy_ball", "nesterov", "ema_momentum"])
@pytest.mark.parametrize("case", ["polynomial", "tanh_network"])
def test_every_method_at_every_order(case, kind, beta, order, request):
    method = getattr(igr.methods, kind)(beta)
    slope = igr.observed_order(method, *request.getfixturevalue(case), order)
    assert abs(slope - (order + 2)) < 0.1, (slope, slope.hs, slope.errors)


ELEMENTWISE = {
    "rmsprop": lambda b: igr.methods.rmsprop(b, 0.1),
    "rmsprop kept": lambda b: igr.methods.rmsprop(b, 0.1, keep=("nu",)),
    "adam": lambda b: igr.methods.adam(b, b, 0.1, keep=()),
    "adam kept": lambda b: igr.methods.adam(b, 0.9, 0.1),
    "adamw": lambda b: igr.methods.adamw(b, 0.9, 0, 0.1, weight_decay=0.1),
    "nadam": lambda b: igr.methods.nadam(b, 0.9, 0.1),
    "lion": lambda b: igr.methods.lion(0.5, b, smoothing=0.1),
    "signsgd": lambda b: igr.methods.signsgd(1 - b),
}


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("rmsprop", 1),
        pytest.param("adam", 2, marks=pytest.mark.slow),
        pytest.param("lion", 1, marks=pytest.mark.slow),
    ],
)
def test_elementwise_methods(polynomial, name, order):
    slope = igr.observed_order(ELEMENTWISE[name](0.5), *polynomial, order)
    assert abs(slope - (order + 2)) < 0.1, (slope, slope.hs, slope.errors)


@pytest.mark.slow
@pytest.mark.parametrize("order", range(3))
@pytest.mark.parametrize("beta", [0.5, 0.7, 0.9])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_every_elementwise_method_at_every_order(polynomial, name, beta, order):
    slope = igr.observed_order(ELEMENTWISE[name](beta), *polynomial, order)
    assert abs(slope - (order + 2)) < 0.1, (slope, slope.hs, slope.errors)


@pytest.mark.slow
def test_a_wrong_field_is_found_out(polynomial):
    """The equation of another method has its own zeroth order right and the next one wrong."""
    averaged = igr.methods.linear_memory((1 + sympy.exp(-igr.methods.z)) / 2)
    from igr.flows.certifying import order

    original = order.modified_equation
    order.modified_equation = lambda method, n: original(GD, n)
    try:
        slope = igr.observed_order(averaged, *polynomial, 2)
    finally:
        order.modified_equation = original
    assert abs(slope - 2) < 0.1


@pytest.mark.slow
def test_float32_reaches_rounding(polynomial):
    value_fn, params = polynomial
    single = jax.tree.map(lambda x: x.astype(jnp.float32), params)
    slope = igr.observed_order(GD, value_fn, single, 3, hs=[0.004, 0.002, 0.001])
    assert slope.at_rounding.all()
    assert math.isnan(slope)


def test_stability_limits_by_hand():
    for beta in (0.5, 0.9):
        heavy, nesterov = igr.methods.heavy_ball(beta), igr.methods.nesterov(beta)
        assert stability_limit(heavy) == pytest.approx(2 * (1 + beta), rel=1e-6)
        assert stability_limit(nesterov) == pytest.approx(2 * (1 + beta) / (1 + 2 * beta), rel=1e-6)
        assert convergence_radius(heavy) == pytest.approx((1 - math.sqrt(beta)) ** 2)
        assert convergence_radius(nesterov) == pytest.approx(((1 - beta) / (1 + beta)) ** 2)
        assert slowest_memory(heavy) == pytest.approx(beta)
    assert stability_limit(GD) == pytest.approx(2)
    assert convergence_radius(GD) == 1
    assert slowest_memory(GD) == 0


def test_limits_against_the_recurrence_itself():
    """Runs the method on a quadratic on both sides of the limit."""
    method = igr.methods.nesterov(0.6)
    import optax

    for factor, grows in ((0.98, False), (1.02, True)):
        x = factor * stability_limit(method)
        traj = igr.run(
            optax.sgd(1.0, 0.6, nesterov=True),
            lambda t, x=x: x * t**2 / 2,
            jnp.array(1.0),
            2_000,
            record_every=1_000,
        )
        assert bool(np.abs(traj.params[-1]) > 1) == grows


def test_bad_input(polynomial):
    value_fn, params = polynomial
    with pytest.raises(ValueError, match="order must be at least 0"):
        igr.observed_order(GD, value_fn, params, -1)
    with pytest.raises(ValueError, match="at least two steps"):
        igr.observed_order(GD, value_fn, params, 1, hs=[0.1])
    with pytest.raises(ValueError, match="hs must be positive"):
        igr.observed_order(GD, value_fn, params, 1, hs=[0.1, -0.1])
    with pytest.raises(ValueError, match="'derived' or 'interpolating'"):
        igr.observed_order(GD, value_fn, params, 1, field="other")
    with pytest.raises(ValueError, match="has a memory"):
        igr.observed_order(igr.methods.heavy_ball(0.9), value_fn, params, 1, field="interpolating")
    with pytest.raises(ValueError, match="order must be at least 0"):
        igr.interpolating_field(lambda p: p, -1, 0.1)
    with pytest.raises(TypeError, match="step_fn must be a function"):
        igr.interpolating_field(3, 1, 0.1)
    with pytest.raises(ValueError, match="h must be positive"):
        igr.interpolating_field(lambda p: p, 1, 0.0)


@pytest.mark.slow
def test_a_rule_made_anew_compiles_nothing(compilations):
    """It is known by what it does, and never taken for another."""

    def observed(rate, power=2):
        method = igr.methods.rule(
            lambda m, nu, theta: m / (nu + 1) + rate * theta,
            {"m": igr.methods.ema(0.5)},
            {"nu": (lambda g: g**power, 0.25)},
        )
        return igr.observed_order(
            method, lambda p: jnp.sum(jnp.cosh(p)), jnp.array([0.4, 1.0]), 1, (0.02, 0.01)
        )

    first = observed(0.5)
    assert first == pytest.approx(3, abs=0.15)
    again = []
    assert compilations(lambda: again.append(observed(0.5))) == 0
    np.testing.assert_array_equal(again[0].errors, first.errors)
    again.append(observed(0.25))
    assert not np.allclose(again[1].errors, first.errors, rtol=1e-3)
    assert compilations(lambda: again.append(observed(0.5, 4))) > 0
