"""Optimizers that are not shipped, described in a few lines and held against their recurrence.

These are the ones of docs/own_optimizer.md.
"""

import jax
import jax.numpy as jnp
import optax
import pytest
from sympy import Symbol, sqrt

import igr
from igr.backward_error.methods import elementwise, ema, g, linear_memory


@pytest.mark.slow
def test_quasi_hyperbolic_momentum(polynomial):
    """QHM (Ma and Yarats 2019): a gradient and an average mixed, one linear memory."""
    nu, beta = 0.7, 0.8
    qhm = linear_memory((1 - nu) + nu * ema(beta), name="QHM")

    def by_hand(h):
        def update(updates, memory, params=None):
            memory = jax.tree.map(lambda m, x: beta * m + (1 - beta) * x, memory, updates)
            step = jax.tree.map(lambda m, x: -h * ((1 - nu) * x + nu * m), memory, updates)
            return step, memory

        return optax.GradientTransformation(optax.tree.zeros_like, update)

    slope = igr.observed_order(qhm, *polynomial, 1, optimizer=by_hand)
    assert abs(slope - 3) < 0.1


B1, B2, B3, ALPHA, EPS = 0.6, 0.7, 0.8, 2.0, 0.1
BELIEF = elementwise(
    Symbol("mu") / sqrt(Symbol("s") + EPS),
    {"mu": (g, ema(B1)), "s": ((g - Symbol("mu")) ** 2, ema(B2))},
    name="AdaBelief",
)
MIXED = elementwise(
    (Symbol("fast") + ALPHA * Symbol("slow")) / (sqrt(Symbol("nu")) + EPS),
    {"fast": (g, ema(B1)), "slow": (g, ema(B3)), "nu": (g**2, ema(B2))},
    name="AdEMAMix",
)


def belief_by_hand(h):
    def init(params):
        zero = optax.tree.zeros_like(params)
        return zero, zero

    def update(updates, state, params=None):
        mu = jax.tree.map(lambda m, x: B1 * m + (1 - B1) * x, state[0], updates)
        s = jax.tree.map(lambda v, x, m: B2 * v + (1 - B2) * (x - m) ** 2, state[1], updates, mu)
        return jax.tree.map(lambda m, v: -h * m / jnp.sqrt(v + EPS), mu, s), (mu, s)

    return optax.GradientTransformation(init, update)


def mixed_by_hand(h):
    def init(params):
        zero = optax.tree.zeros_like(params)
        return zero, zero, zero

    def update(updates, state, params=None):
        def average(b, m, x):
            return jax.tree.map(lambda m, x: b * m + (1 - b) * x, m, x)

        fast, slow = average(B1, state[0], updates), average(B3, state[1], updates)
        nu = average(B2, state[2], jax.tree.map(jnp.square, updates))
        step = jax.tree.map(
            lambda m, n, v: -h * (m + ALPHA * n) / (jnp.sqrt(v) + EPS), fast, slow, nu
        )
        return step, (fast, slow, nu)

    return optax.GradientTransformation(init, update)


@pytest.mark.parametrize("order", [1, *(pytest.param(p, marks=pytest.mark.slow) for p in (0, 2))])
@pytest.mark.parametrize(
    ("method", "optimizer"),
    [(BELIEF, belief_by_hand), pytest.param(MIXED, mixed_by_hand, marks=pytest.mark.slow)],
    ids=lambda x: getattr(x, "name", None),
)
def test_described_in_three_lines(polynomial, method, optimizer, order):
    slope = igr.observed_order(method, *polynomial, order, optimizer=optimizer)
    assert abs(slope - (order + 2)) < 0.1, (slope, slope.hs, slope.errors)


@pytest.mark.slow
def test_belief_kept(polynomial):
    """A kept state reads those before it after their update, as AdaBelief's variance does."""
    method = elementwise(
        Symbol("mu") / sqrt(Symbol("s") + EPS),
        {},
        {"mu": (g, 1 - 0.99), "s": ((g - Symbol("mu")) ** 2, 1 - 0.99)},
    )
    field = igr.vector_field(igr.modified_equation(method, 1), polynomial.value_fn, 1e-3)
    state = polynomial.params, {"mu": {"x": 1.0, "y": 0.5}, "s": {"x": 0.3, "y": 0.2}}
    state = jax.tree.map(jnp.asarray, state)
    gradient = jax.grad(polynomial.value_fn)(state[0])
    mu = jax.tree.map(lambda m, x: 0.99 * m + 0.01 * x, state[1]["mu"], gradient)
    s = jax.tree.map(lambda v, x, m: 0.99 * v + 0.01 * (x - m) ** 2, state[1]["s"], gradient, mu)
    solution = igr.flow(field, state, 1e-3, dt0=1e-3)
    for found, old, new in (("mu", state[1]["mu"], mu), ("s", state[1]["s"], s)):
        change = optax.tree.norm(optax.tree.sub(new, old))
        apart = optax.tree.sub(jax.tree.map(lambda x: x[-1], solution.ys[1][found]), new)
        assert optax.tree.norm(apart) < 1e-3 * change
