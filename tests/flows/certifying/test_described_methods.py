"""Every description against the real optimizer it describes: one-step slopes of order + 2."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import igr
from igr import methods


def _decayed(trace, c):
    return lambda h: optax.chain(
        trace, optax.add_decayed_weights(c), optax.scale_by_learning_rate(h)
    )


class _Uphill:
    """SAM as it is written down, for a loss known beforehand."""

    def __init__(self, value_fn, rho, normalized, with_step):
        self.value_fn, self.rho = value_fn, rho
        self.normalized, self.with_step = normalized, with_step

    def __call__(self, h):
        def update(updates, state, params=None):
            far = self.rho * (h if self.with_step else 1.0)
            if self.normalized:
                far = far / jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(updates)))
            above = jax.tree.map(lambda x, g: x + far * g, params, updates)
            return jax.tree.map(lambda g: -h * g, jax.grad(self.value_fn)(above)), state

        return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


DECAYED = {
    "gradient descent": lambda b, c: (methods.gradient_descent(weight_decay=c), optax.identity()),
    "heavy ball": lambda b, c: (methods.heavy_ball(b, weight_decay=c), optax.trace(b)),
    "nesterov": lambda b, c: (
        methods.nesterov(b, weight_decay=c),
        optax.trace(b, nesterov=True),
    ),
    "averaged": lambda b, c: (
        methods.ema_momentum(b, weight_decay=c),
        optax.ema(b, debias=False),
    ),
}
UPHILL = {
    "sam": (methods.sam(0.7), 0.7, True, True),
    "sam, fixed": (methods.sam(0.1, "fixed"), 0.1, True, False),
    "usam": (methods.usam(0.7), 0.7, False, True),
    "usam, fixed": (methods.usam(0.1, "fixed"), 0.1, False, False),
}
SLOW = pytest.mark.slow


TABLEAUX = {  # tableau, and the order of the method, below which the field is the gradient flow's
    "Heun": (([[0, 0], [1, 0]], [0.5, 0.5]), 2),
    "implicit midpoint": (([[0.5]], [1]), 2),
    "Kutta 3": (
        ([[0, 0, 0], [0.5, 0, 0], [-1, 2, 0]], [Fraction(1, 6), Fraction(2, 3), Fraction(1, 6)]),
        3,
    ),
}


def _check(slope, order):
    assert abs(slope - (order + 2)) < 0.1, (slope, slope.hs, slope.errors)


def _slow_but(names, shown):
    return [name if name in shown else pytest.param(name, marks=SLOW) for name in names]


@pytest.mark.parametrize("order", [1, pytest.param(0, marks=SLOW), pytest.param(2, marks=SLOW)])
@pytest.mark.parametrize("beta", [0.7, *(pytest.param(b, marks=SLOW) for b in (0.5, 0.9))])
@pytest.mark.parametrize("name", _slow_but(DECAYED, ["heavy ball"]))
def test_weight_decay(polynomial, name, beta, order):
    method, trace = DECAYED[name](beta, 0.3)
    optimizer = _decayed(trace, 0.3)
    _check(igr.observed_order(method, *polynomial, order, optimizer=optimizer), order)


@pytest.mark.parametrize("order", [2, pytest.param(0, marks=SLOW), pytest.param(1, marks=SLOW)])
@pytest.mark.parametrize("name", _slow_but(UPHILL, ["sam, fixed"]))
def test_sharpness_aware(polynomial, name, order):
    method, *how = UPHILL[name]
    optimizer = _Uphill(polynomial.value_fn, *how)
    _check(igr.observed_order(method, *polynomial, order, optimizer=optimizer), order)


@pytest.mark.slow
@pytest.mark.parametrize("order", range(4))
@pytest.mark.parametrize("name", TABLEAUX)
def test_runge_kutta(polynomial, name, order):
    tableau, own = TABLEAUX[name]
    slope = igr.observed_order(methods.runge_kutta(*tableau), *polynomial, order)
    expected = max(order + 2, own + 1)
    if name == "implicit midpoint":
        expected += expected % 2 == 0 and order >= own  # symmetric: only even powers of h
    assert abs(slope - expected) < 0.1, (slope, slope.errors)


def _kept(name, eta, m, v):
    """A method with every state kept, the state, and the optax rule with its state, b = 1 - eta."""
    b = 1 - eta
    if name in ("heavy ball", "nesterov"):
        # The momentum sums up 1/eta gradients and is as long.
        make = methods.heavy_ball if name == "heavy ball" else methods.nesterov
        rule, state = optax.trace(b, name == "nesterov"), optax.TraceState(m / eta)
        return make(b, keep=("trace",)), {"trace": m / eta}, rule, state
    if name == "averaged":
        rule, state = optax.ema(b, debias=False), optax.EmaState(jnp.array(0), m)
        return methods.ema_momentum(b, keep=("ema",)), {"ema": m}, rule, state
    if name == "lion":
        rule, state = _smoothed_lion(0.8, b, 0.1), optax.ScaleByLionState(jnp.array(0), m)
        return methods.lion(0.8, b, smoothing=0.1, keep=("mu",)), {"mu": m}, rule, state
    if name == "rmsprop":
        rule, state = optax.scale_by_rms(b, 0.1), optax.ScaleByRmsState(v)
        return methods.rmsprop(b, 0.1, keep=("nu",)), {"nu": v}, rule, state
    kept, state = {"mu": m, "nu": v}, optax.ScaleByAdamState(jnp.array(round(0.8 / eta)), m, v)
    keep = ("mu", "nu")
    if name == "nadam":
        method = methods.nadam(b, b, 0.1, keep=keep)
        return method, kept, optax.scale_by_adam(b, b, 0.1, nesterov=True), state
    if name == "adam":
        return methods.adam(b, b, 0.1, keep=keep), kept, optax.scale_by_adam(b, b, 0.1), state
    decayed = optax.chain(optax.scale_by_adam(b, b, 0, 0.1), optax.add_decayed_weights(0.3))
    method = methods.adamw(b, b, 0, 0.1, weight_decay=0.3, keep=keep)
    return method, kept, decayed, (state, optax.EmptyState())


KEPT = ["heavy ball", "nesterov", "averaged", "rmsprop", "adam", "adamw", "nadam", "lion"]


@pytest.mark.parametrize("order", [1, pytest.param(0, marks=SLOW), pytest.param(2, marks=SLOW)])
@pytest.mark.parametrize("name", _slow_but(KEPT, ["heavy ball"]))
def test_kept_states_from_any_start(name, order):
    """One step of optax and of the flow from a state far from any slow manifold, b = 1 - eta."""
    value_fn = lambda x: jnp.cosh(x[0]) + jnp.cosh(x[1]) / 2 + x[0] * x[1] ** 2 / 3
    x, m, v = jnp.array([0.7, -0.4]), jnp.array([-0.3, 0.8]), jnp.array([0.5, 0.9])
    errors = []
    for eta in (0.004, 0.002):
        method, kept, rule, state = _kept(name, eta, m, v)
        scale, h = (eta, eta**2) if "trace" in kept else (1.0, eta)
        t = round(0.8 / eta) * h  # the count that the bias correction reads, times h
        updates, after = rule.update(jax.grad(value_fn)(x), state, x)
        field = igr.vector_field(igr.modified_equation(method, order), value_fn, h)
        end, states = _runge_kutta(jax.jit(field), (x, kept), t, h)
        apart = [scale * jnp.linalg.norm(states[y] - optax.tree.get(after, y)) for y in kept]
        errors.append([jnp.linalg.norm(end - (x - h * updates)), *apart])
    slopes = -jnp.diff(jnp.log2(jnp.array(errors)), axis=0)[0]
    assert np.all(np.abs(slopes - (order + 2)) < 0.1), (slopes, errors)


def _runge_kutta(field, y, t, h, substeps=4):
    """The classical fourth-order method, in steps of h/4."""

    def moved(c, slope):
        return jax.tree.map(lambda a, b: a + c * h / substeps * b, y, slope)

    for i in range(substeps):
        at = t + i * h / substeps
        k1 = field(at, y, None)
        k2 = field(at + h / substeps / 2, moved(0.5, k1), None)
        k3 = field(at + h / substeps / 2, moved(0.5, k2), None)
        k4 = field(at + h / substeps, moved(1, k3), None)
        y = moved(1 / 6, jax.tree.map(lambda a, b, c, d: a + 2 * b + 2 * c + d, k1, k2, k3, k4))
    return y


def _smoothed_lion(b1, b2, smoothing):
    def update(g, state, params=None):
        c = b1 * state.mu + (1 - b1) * g
        after = optax.ScaleByLionState(state.count + 1, b2 * state.mu + (1 - b2) * g)
        return c / jnp.sqrt(c**2 + smoothing), after

    return optax.GradientTransformation(lambda params: None, update)


@pytest.mark.parametrize("order", [1, pytest.param(0, marks=SLOW), pytest.param(2, marks=SLOW)])
@pytest.mark.parametrize("beta", [0.9, *(pytest.param(b, marks=SLOW) for b in (0.5, 0.7))])
@pytest.mark.slow
def test_adam_with_a_long_first_moment_eliminated(polynomial, beta, order):
    """One step after a real run to time 0.8, long enough for the first moment to have filled."""
    value_fn, params = polynomial
    errors = []
    for h in (1e-4, 5e-5) if beta == 0.9 else (5e-4, 2.5e-4):
        steps, b2 = round(0.8 / h), 1 - 20 * h
        optimizer = optax.adam(h, beta, b2, 0.1)

        @jax.jit
        def real(optimizer=optimizer, steps=steps):
            def step(carry, _):
                updates, state = optimizer.update(jax.grad(value_fn)(carry[0]), carry[1])
                return (optax.apply_updates(carry[0], updates), state), carry

            start = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), params)
            end, before = jax.lax.scan(step, (start, optimizer.init(start)), length=steps + 1)
            return jax.tree.map(lambda leaf: leaf[-1], before), end

        (x, state), (after, state_after) = real()
        equation = igr.modified_equation(methods.adam(beta, b2, 0.1), order)
        field = jax.jit(igr.vector_field(equation, value_fn, h))
        kept = {"nu": optax.tree.get(state, "nu")}
        end, states = _runge_kutta(field, (x, kept), steps * h, h)
        reached = (end, states["nu"]), (after, optax.tree.get(state_after, "nu"))
        errors.append(
            [optax.tree.norm(optax.tree.sub(a, b)) for a, b in zip(*reached, strict=True)]
        )
    slopes = -jnp.diff(jnp.log2(jnp.array(errors)), axis=0)[0]
    assert np.all(np.abs(slopes - (order + 2)) < 0.1), (slopes, errors)
