"""Optimizers whose batches are drawn anew: mean and law against every sequence of batches.

Also rules that couple, bend or keep a memory, whose batches come once an epoch.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import igr
from igr.backward_error.protocols import UnansweredError
from igr.flows import reshuffled_field, sampled_field, spread_field
from tests.flows.fields.batches.test_reshuffled_field import (
    AT,
    B2,
    EPS,
    LATE,
    START,
    adam,
    batches,
    flowed,
    loss,
)

HS = 0.001 / 2.0 ** np.arange(3)
SMALL = HS / 8  # where the second moment turns slowly beside the memory
AVERAGE = jnp.array([0.4, 0.3])  # what a kept state starts from


def share(beta, h):
    return 1 - beta ** (h / AT)


def unit(g):
    return g / jnp.sqrt(jnp.sum(g**2) + 0.3)


def soft(x):
    return x / jnp.sqrt(x**2 + 0.2)


# Each rule as it is described, and by hand: (params, state), gradient, h -> the new ones.
def normalized(carry, g, h):
    x, y = carry
    return x - h * unit(g), y


def sign(carry, g, h):
    x, y = carry
    return x - h * soft(g), y


def lion(carry, g, h):
    x, mu = carry
    return x - h * soft(0.6 * mu + 0.4 * g), mu + share(0.8, h) * (g - mu)


def rmsprop(carry, g, h):
    x, nu = carry
    nu = nu + share(B2, h) * (g**2 - nu)
    return x - h * g / jnp.sqrt(nu + EPS), nu


def clipped_average(carry, g, h):
    x, m = carry
    m = m + share(0.8, h) * (g - m)
    return x - h * unit(m), m


def wedged_lion():
    """Lion with b1 of its own: the momentum before its update, where the share depends on h."""
    return igr.methods.rule(
        lambda mu_before, g: soft(0.6 * mu_before + 0.4 * g), kept={"mu": (lambda g: g, 0.2)}
    )


RULES = {
    "normalized": (lambda: igr.methods.rule(unit_of), normalized, None),
    "sign": (lambda: igr.methods.signsgd(0.2), sign, None),
    "lion": (wedged_lion, lion, "mu"),
    "rmsprop": (lambda: igr.methods.rmsprop(B2, EPS, keep=("nu",)), rmsprop, "nu"),
    "clipped average": (
        lambda: igr.methods.rule(lambda m: unit(m), kept={"m": (lambda g: g, 0.2)}),
        clipped_average,
        "m",
    ),
}


def unit_of(g):
    return unit(g)


def enumerated(step, start, m, orders, h, data):
    """The state after each step, for each sequence of batches."""

    def one(order):
        def along(carry, k):
            g = jax.grad(loss)(carry[0], jax.tree.map(lambda d: d[k], data))
            carry = step(carry, g, h)
            return carry, carry[:2]

        return jax.lax.scan(along, start, order)[1]

    return jax.vmap(one)(orders)


def fitted(errors):
    return [np.polyfit(np.log(HS), np.log(e), 1)[0] for e in np.array(errors).T]


@pytest.mark.parametrize(
    "sampling", ["with replacement", pytest.param("once an epoch", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    "name",
    [n if n == "rmsprop" else pytest.param(n, marks=pytest.mark.slow) for n in RULES],
)
def test_the_mean_over_all_sequences(name, sampling):
    """Three steps of three batches: 27 sequences, or the 6 orders."""
    described, step, kept = RULES[name]
    method, m, data = described(), 3, batches(3)
    drawn = sampling == "with replacement"
    sequences = itertools.product(range(m), repeat=m) if drawn else itertools.permutations(range(m))
    orders = jnp.asarray(list(sequences))

    @jax.jit
    def errors(h):
        x, y = (
            jnp.mean(v[:, -1], 0) for v in enumerated(step, (START, AVERAGE), m, orders, h, data)
        )
        start = (START, {kept: AVERAGE}) if kept else START
        found = []
        for order in (0, 1):
            if drawn:
                field = sampled_field(method, loss, h, data, order=order, rates_at=AT).drift
            else:
                field = reshuffled_field(method, loss, h, data, order=order, rates_at=AT)
            end = flowed(field, start, m * h, 2)
            params, averages = end if kept else (end, {kept: y})
            found.append(jnp.hypot(*map(jnp.linalg.norm, (params - x, averages[kept] - y))))
        return jnp.stack(found)

    every = [errors(h) for h in HS]
    slopes = fitted(every)
    assert abs(slopes[0] - 2) < 0.1, every
    assert abs(slopes[1] - 3) < 0.1, every


def adam_by_hand(b1):
    def step(carry, g, h):
        x, nu, mu = carry
        mu, nu = b1 * mu + (1 - b1) * g, nu + share(B2, h) * (g**2 - nu)
        return x - h * mu / (jnp.sqrt(nu) + EPS), nu, mu

    return step


def clipped_momentum(b):
    def step(carry, g, h):
        x, y, m = carry
        m = b * m + unit(g)
        return x - h * m, y, m

    return step


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "m", "n", "b"),
    [
        ("adam", 2, 12, 0.1),
        pytest.param("adam", 3, 8, 0.05, marks=pytest.mark.slow),
        pytest.param("clip", 2, 12, 0.1, marks=pytest.mark.slow),
    ],
)
def test_a_memory_over_all_sequences(name, m, n, b):
    """All m^n: the mean over the last steps, of which the first memory sees nothing, and by how
    much the covariance grows in them."""
    orders, data = jnp.asarray(list(itertools.product(range(m), repeat=n))), batches(m)
    if name == "adam":
        method, step, last = adam(b), adam_by_hand(b), 2
    else:
        transfer = igr.methods.heavy_ball(b).transfer
        method = igr.methods.rule(lambda m: m, {"m": (lambda g: unit(g), transfer)})
        step, last = clipped_momentum(b), 2

    @jax.jit
    def found(h):
        g = jax.vmap(lambda d: jax.grad(loss)(START, d))(data)
        held = jnp.mean(g, 0) if name == "adam" else jnp.mean(jax.vmap(unit)(g), 0) / (1 - b)
        states = enumerated(step, (START, AVERAGE, held), m, orders, h, data)
        x, y = (jnp.mean(v, 0) for v in states)
        start = (x[-1 - last], {"nu": y[-1 - last]}) if name == "adam" else x[-1 - last]
        errors = []
        for order in (0, 1):
            field = sampled_field(method, loss, h, data, order=order, rates_at=AT)
            end = flowed(field.drift, start, last * h, 4)
            params, averages = (end[0], end[1]["nu"]) if name == "adam" else (end, y[-1])
            errors.append(jnp.hypot(*map(jnp.linalg.norm, (params - x[-1], averages - y[-1]))))
        both = jnp.concatenate(states, -1) if name == "adam" else states[0]
        apart = both - jnp.mean(both, 0)
        cov = lambda k: apart[:, k].T @ apart[:, k] / len(orders)
        grown = (cov(-1) - cov(-1 - last)) / (last * h)
        operator = field.diffusion(LATE, start, None)
        rows = jax.vmap(operator.mv)(jnp.eye(m))
        rows = jnp.concatenate([rows[0], rows[1]["nu"]], -1) if name == "adam" else rows
        return jnp.stack(errors), jnp.max(jnp.abs(grown - rows.T @ rows)) / h, jnp.max(grown) / h

    results = [found(h) for h in SMALL]
    slopes = fitted([r[0] for r in results])
    assert abs(slopes[0] - 2) < 0.15, results
    assert abs(slopes[1] - 3) < 0.15, results
    apart = [float(r[1] / r[2]) for r in results]
    assert apart[-1] < 0.02, apart
    assert apart[-1] < 0.6 * apart[-2] < 0.36 * apart[-3], apart


@pytest.mark.slow
def test_the_mean_of_many_runs_of_adam():
    """Mean and covariance at a time of order one, from 20000 runs."""
    m, h, steps, count = 4, 0.01, 120, 20000
    data = batches(m)
    orders = jax.random.randint(jax.random.key(1), (count, steps), 0, m)
    g = jax.vmap(lambda d: jax.grad(loss)(START, d))(data)
    mean, square = jnp.mean(g, 0), jnp.mean(g**2, 0)

    @jax.jit
    def runs(orders):
        def one(order):
            def along(carry, k):
                g = jax.grad(loss)(carry[0], jax.tree.map(lambda d: d[k], data))
                return adam_by_hand(0.9)(carry, g, h), None

            return jax.lax.scan(along, (START, square, mean), order)[0]

        return jax.vmap(one)(orders)

    x, *_ = runs(orders)
    end, noise = jnp.mean(x, 0), jnp.std(x, 0) / count**0.5
    fields = [sampled_field(adam(0.9), loss, h, data, order=k, rates_at=AT) for k in (0, 1)]
    start = (START, {"nu": square})

    @jax.jit
    def ends():
        closed = [
            flowed(spread_field(f), (start, jnp.zeros((4, 4))), h * steps, 60) for f in fields
        ]
        return [c[0][0] for c in closed], closed[1][1]

    (zero, one), covariance = ends()
    far = lambda y: jnp.linalg.norm(y - end)
    uncertain = 3 * jnp.linalg.norm(noise)
    assert far(zero) > 5 * uncertain, (far(zero), far(one), uncertain)
    assert far(one) < far(zero) / 5 + uncertain, (far(zero), far(one), uncertain)
    found = jnp.cov(x.T, bias=True)
    np.testing.assert_allclose(covariance[:2, :2], found, rtol=0.1, atol=0.05 * found.max())


def test_without_memory_and_with_a_rule_it_is_the_first_field():
    """Whose law is proved in test_memoryless.py."""
    data = batches(3)
    method = igr.methods.rule(unit_of)
    old = igr.flows.stochastic_rule_field(method, loss, 0.1, data)
    new = sampled_field(method, loss, 0.1, data, order=0)
    increments = jnp.array([0.3, -1.0, 0.2])
    of_old, of_new = (
        jax.jit(lambda x, f=f: (f.drift(0.0, x), f.diffusion(0.0, x).mv(increments)))(START)
        for f in (old, new)
    )
    for a, b in zip(of_new, of_old, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.slow
def test_an_optimizer_as_it_stands():
    """Of optax, without a description, in single precision: momentum on clipped gradients."""
    make = lambda h: optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(h, 0.5))
    data = jax.tree.map(lambda x: x.astype(jnp.float32), batches(3))
    start = START.astype(jnp.float32)
    field = sampled_field(igr.from_optax(make, certify=False), loss, 0.05, data)
    by_hand = igr.methods.rule(
        lambda m: m,
        {
            "m": (
                lambda g: g / jnp.maximum(1, jnp.linalg.norm(g)),
                igr.methods.heavy_ball(0.5).transfer,
            )
        },
    )
    right = sampled_field(by_hand, loss, 0.05, data)
    found = field.drift(0.0, start)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, right.drift(0.0, start), rtol=1e-5)


def test_bad_input():
    data = batches(2)
    with pytest.raises(UnansweredError, match="not linear in nu, which it eliminates"):
        sampled_field(igr.methods.adam(0.5, 0.6, keep=()), loss, 0.1, data)
    with pytest.raises(ValueError, match="got order 2: beyond, third moments"):
        sampled_field(igr.methods.heavy_ball(0.5), loss, 0.1, data, order=2)
    with pytest.raises(TypeError, match="a linear memory, an elementwise rule or a rule"):
        sampled_field(igr.methods.reshuffled_sgd(2), loss, 0.1, data)
    with pytest.raises(ValueError, match="has open symbols, beta"):
        sampled_field(igr.methods.heavy_ball(igr.methods.z.__class__("beta")), loss, 0.1, data)
    bent = igr.methods.rule(unit_in_m, {"m": igr.methods.ema(0.5)}, name="late clip")
    with pytest.raises(UnansweredError, match="late clip is not linear in m, which it eliminates"):
        sampled_field(bent, loss, 0.1, data).drift(0.0, START)
    mixed = igr.methods.rule(lambda m, g: m * g**2, {"m": igr.methods.ema(0.5)}, name="mixed")
    with pytest.raises(UnansweredError, match="mixed is not linear in g and a memory"):
        reshuffled_field(mixed, loss, 0.1, data)(0.0, START, None)
    late = igr.methods.rule(lambda last: last, kept={"last": (lambda g: g, 1)}, name="late")
    with pytest.raises(UnansweredError, match="the state last of late is renewed by every batch"):
        sampled_field(late, loss, 0.1, data)
    field = spread_field(sampled_field(igr.methods.heavy_ball(0.5), loss, 0.1, data))
    with pytest.raises(ValueError, match="the covariance of 2 numbers must be 2 x 2; got shape"):
        field(0.0, (START, jnp.zeros((3, 3))), None)


def unit_in_m(m):
    return unit(m)


def test_it_prints_in_words():
    """The coefficients by hand: b1 = 0.9 of an average, two batches with rho_1 = -1/2."""
    method = igr.methods.adam(0.9, 0.99, 0.1)
    once, anew = (
        reshuffled_field(method, loss, 0.1, batches(2)),
        sampled_field(method, loss, 0.1, batches(2)).drift,
    )
    assert str(once).startswith("x' = M + h F_1 + O(h²), with x = (θ, nu), M = ⟨V_b(mu)⟩")
    assert "F_1 = -1/2 M' M - 9 L_mu ⟨φ_mu,b'⟩[M]" in str(once)  # W'(0) = -b1/(1 - b1)
    assert "u = -0.5 ~V_b(mu) - 0.05 L_mu ~φ_mu,b" in str(once)  # rho_1 w_0
    assert "mu = φ_mu,b - 0.945 ~φ_mu,b" in str(once)  # w_0 + rho_1 w_1 = 0.1 - 0.045
    assert ", u = " not in str(anew)
    assert "b one of 2 batches, each drawn anew" in str(anew)
    assert r"\langle V_b(\mu) \rangle" in once.latex()
