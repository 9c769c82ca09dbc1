"""The mean of Adam and of linear memories over the orders of their batches."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import igr
from igr.backward_error.protocols import UnansweredError
from igr.flows import reshuffled_field

AT = 0.1  # the step that the rate of the second moment is meant for
B2, EPS = 0.9, 0.1
LATE = 1e6  # by when the bias correction is gone


def loss(x, batch):
    """Smooth, coupling, and another for each batch, in more than a shift."""
    a, c = batch
    return jnp.sum(a * (x - c) ** 2) / 2 + jnp.sin(a[0] * x[0] * x[1]) + jnp.sum(jnp.cosh(x)) / 4


def batches(m):
    random = np.random.default_rng(3)
    return jnp.asarray(random.uniform(0.5, 1.5, (m, 2))), jnp.asarray(random.normal(size=(m, 2)))


def adam(b1):
    return igr.from_optax(lambda h: optax.adam(h, b1, B2, EPS), keep=("nu",), certify=False)


START = jnp.array([0.8, -0.5])


def means(m):
    gradients = jax.vmap(lambda b: jax.grad(loss)(START, b))(batches(m))
    return jnp.mean(gradients, 0), jnp.mean(gradients**2, 0)


def runs(b1, m, h, orders):
    """Adam by hand along many sequences of batches: params and nu after each step, and mu full."""
    share = 1 - B2 ** (h / AT)
    mu, nu = means(m)
    data = batches(m)

    def one(order):
        def step(carry, k):
            x, mu, nu = carry
            g = jax.grad(loss)(x, jax.tree.map(lambda d: d[k], data))
            mu, nu = b1 * mu + (1 - b1) * g, nu + share * (g**2 - nu)
            x = x - h * mu / (jnp.sqrt(nu) + EPS)
            return (x, mu, nu), (x, nu)

        return jax.lax.scan(step, (START, mu, nu), order)[1]

    return jax.vmap(one)(orders)


def flowed(field, state, time, steps):
    """By Runge and Kutta's method."""
    dt = time / steps

    def step(y, _):
        along = lambda y, k, s: jax.tree.map(lambda a, b: a + s * b, y, k)
        k1 = field(LATE, y, None)
        k2 = field(LATE, along(y, k1, dt / 2), None)
        k3 = field(LATE, along(y, k2, dt / 2), None)
        k4 = field(LATE, along(y, k3, dt), None)
        ks = jax.tree.map(lambda a, b, c, d: (a + 2 * b + 2 * c + d) / 6, k1, k2, k3, k4)
        return along(y, ks, dt), None

    return jax.lax.scan(step, state, None, length=steps)[0]


@pytest.mark.parametrize(
    ("m", "epochs", "b1"),
    [
        (2, 5, 0.2),
        pytest.param(3, 3, 0.2, marks=pytest.mark.slow),
        pytest.param(4, 2, 0.1, marks=pytest.mark.slow),
    ],
)
def test_the_mean_of_adam_over_all_orders(m, epochs, b1):
    """All (m!)^epochs sequences: the last epoch, of which the memory of the first sees nothing."""
    each = list(itertools.permutations(range(m)))
    orders = jnp.asarray([sum(found, ()) for found in itertools.product(each, repeat=epochs)])
    hs = 0.004 / 2.0 ** np.arange(3)
    errors = np.zeros((2, 3))
    first = jax.jit(lambda h: runs(b1, m, h, orders))
    method, data = adam(b1), batches(m)
    last = [
        jax.jit(
            lambda h, y, order=order: flowed(
                reshuffled_field(method, loss, h, data, order=order, rates_at=AT), y, m * h, 2 * m
            )
        )
        for order in (0, 1)
    ]
    for i, h in enumerate(jnp.asarray(hs)):
        x, nu = (jnp.mean(v, 0) for v in first(h))
        for order in (0, 1):
            y, averages = last[order](h, (x[-1 - m], {"nu": nu[-1 - m]}))
            errors[order, i] = jnp.hypot(
                jnp.linalg.norm(y - x[-1]), jnp.linalg.norm(averages["nu"] - nu[-1])
            )
    slopes = [np.polyfit(np.log(hs), np.log(e), 1)[0] for e in errors]
    assert abs(slopes[0] - 2) < 0.15, errors
    assert abs(slopes[1] - 3) < 0.15, errors


@pytest.mark.slow
def test_the_mean_of_many_runs_of_adam():
    """Adam with b1 = 0.9, drawn anew each epoch: the mean of 2000 runs is ten times closer."""
    m, h, epochs, count = 4, 0.01, 60, 2000
    keys = jax.random.split(jax.random.key(0), (count, epochs))
    orders = jax.vmap(jax.vmap(lambda key: jax.random.permutation(key, m)))(keys)
    x, _ = jax.jit(lambda o: runs(0.9, m, h, o))(orders.reshape(count, -1))
    end, spread = jnp.mean(x[:, -1], 0), jnp.std(x[:, -1], 0) / count**0.5
    mu, nu = means(m)
    del mu
    apart = [
        flowed(
            reshuffled_field(adam(0.9), loss, h, batches(m), order=order, rates_at=AT),
            (START, {"nu": nu}),
            h * m * epochs,
            120,
        )[0]
        - end
        for order in (0, 1)
    ]
    assert np.linalg.norm(apart[1]) < np.linalg.norm(apart[0]) / 8 + 3 * np.linalg.norm(spread)
    assert np.linalg.norm(apart[0]) > 20 * np.linalg.norm(spread)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("m", "beta", "nesterov"),
    [
        pytest.param(3, 0.6, False, marks=pytest.mark.slow),
        (2, 0.5, True),
        pytest.param(4, 0, False, marks=pytest.mark.slow),
    ],
)
def test_a_linear_memory_is_reshuffled_sgd(m, beta, nesterov):
    """Whose coefficients are exact."""
    shipped = igr.methods.reshuffled_sgd(m, momentum=beta, nesterov=nesterov)
    optimizer = lambda h: optax.sgd(h, beta or None, nesterov=nesterov)
    found = igr.from_optax(optimizer, certify=False)
    data = batches(m)

    right = igr.vector_field(igr.modified_equation(shipped, 1), loss, 0.1, batches=data)
    ours = reshuffled_field(found, loss, 0.1, data)(0.0, START, None)
    assert np.allclose(ours, right(0.0, START, None), rtol=1e-12)


@pytest.mark.slow
def test_a_weight_that_no_batch_uses_stands_still():
    """Dead pixels and units in single precision: the gradient and nu are exactly zero."""
    data = jnp.array([0.5, 2.0], jnp.float32)
    dead = lambda x, a: a * jnp.cosh(x[0]) + 0 * x[1]
    field = reshuffled_field(igr.methods.adam(), dead, 1e-3, data)
    params, nu = jnp.array([0.5, 2.0], jnp.float32), jnp.array([0.1, 0.0], jnp.float32)
    theta, kept = field(1.0, (params, {"nu": nu}), None)
    assert theta[1] == 0
    assert theta[0] < -0.1
    assert np.isfinite(kept["nu"]).all()


def test_bad_input():
    data = batches(2)
    with pytest.raises(UnansweredError, match="not linear in nu, which it eliminates"):
        reshuffled_field(igr.methods.adam(0.5, 0.6, keep=()), loss, 0.1, data)
    with pytest.raises(ValueError, match="got order 2: beyond, the spread"):
        reshuffled_field(igr.methods.heavy_ball(0.5), loss, 0.1, data, order=2)
    with pytest.raises(TypeError, match="a linear memory, an elementwise rule or a rule"):
        reshuffled_field(optax.adam(0.1), loss, 0.1, data)
