"""Rules that bend what they eliminate: mean and noise against every sequence of batches."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import igr
from igr.backward_error.protocols import UnansweredError
from igr.flows import reshuffled_field, sampled_field, spread_field
from igr.flows.fields.batches.as_rule import as_rule
from igr.flows.fields.batches.over_sequences import OverSequences, Sequences
from igr.flows.fields.batches.remembered import WITH_REPLACEMENT, reshuffled
from igr.flows.fields.batches.steps import BatchSteps
from tests.flows.fields.batches.test_reshuffled_field import (
    AT,
    EPS,
    LATE,
    START,
    adam,
    batches,
    flowed,
    loss,
)

HS = 0.0012 / 2.0 ** np.arange(3)
B = 0.03  # fades within the few steps that can be enumerated


def unit(m):
    return m / jnp.sqrt(jnp.sum(m**2) + 0.3)


# As described, what the memory takes in, and the direction by hand of what it holds and g.
RULES = {
    "clipped momentum": (
        lambda: igr.methods.rule(lambda m: unit(m), {"m": igr.methods.ema(B)}),
        lambda g: g,
        lambda m, g: unit(m),
    ),
    "rmsprop": (
        lambda: igr.methods.rmsprop(B, EPS, keep=()),
        lambda g: g**2,
        lambda nu, g: g / jnp.sqrt(nu + EPS),
    ),
}


def runs(name, orders, h, data):
    """Params after each step along every sequence, the memory full at the start."""
    _, taken, direction = RULES[name]
    g = jax.vmap(lambda batch: jax.grad(loss)(START, batch))(data)
    full = jnp.mean(jax.vmap(taken)(g), 0)

    def one(order):
        def step(carry, k):
            x, m = carry
            g = jax.grad(loss)(x, jax.tree.map(lambda d: d[k], data))
            m = B * m + (1 - B) * taken(g)
            x = x - h * direction(m, g)
            return (x, m), x

        return jax.lax.scan(step, (START, full), order)[1]

    return jax.vmap(one)(orders)


def every(m, epochs):
    """All orders of so many epochs, or with epochs of one batch all sequences."""
    each = list(itertools.permutations(range(m)))
    return np.array([sum(found, ()) for found in itertools.product(each, repeat=epochs)])


@pytest.mark.parametrize(
    ("name", "sampling"),
    [
        ("clipped momentum", "once an epoch"),
        pytest.param("rmsprop", "with replacement", marks=pytest.mark.slow),
        pytest.param("rmsprop", "once an epoch", marks=pytest.mark.slow),
        pytest.param("clipped momentum", "with replacement", marks=pytest.mark.slow),
    ],
)
def test_over_all_sequences(name, sampling):
    """Two batches: the mean of all runs from the end of one epoch to the end of the next, or over
    two steps, and by how much the covariance grows in them."""
    data, once = batches(2), sampling == "once an epoch"
    method = as_rule(RULES[name][0](), affine=False)
    if once:
        orders, sequences = every(2, 6), Sequences(every(2, 7), 6, 6, 2)
    else:
        sequence = itertools.product(range(2), repeat=11)
        orders = np.array(list(itertools.product(range(2), repeat=10)))
        sequences = Sequences(np.array(list(sequence)), 5, 5, 1)
    drawn = reshuffled(2) if once else WITH_REPLACEMENT

    @jax.jit
    def found(h):
        x = runs(name, orders, h, data)
        mean = jnp.mean(x, 0)
        steps = BatchSteps(method, loss, h, None, affine=False)
        averaged = OverSequences(steps, sequences, drawn, data)
        ends = [flowed(averaged.drift(order), mean[-3], 2 * h, 2) for order in (0, 1)]
        apart = x - mean
        cov = lambda k: apart[:, k].T @ apart[:, k] / len(orders)
        rows = jax.vmap(averaged.noise(LATE, mean[-3]))(jnp.eye(averaged.motions))
        grown = (cov(-1) - cov(-3)) / (2 * h)
        errors = jnp.stack([jnp.linalg.norm(end - mean[-1]) for end in ends])
        return errors, jnp.max(jnp.abs(grown - rows.T @ rows)) / jnp.max(grown)

    results = [found(h) for h in HS]
    slopes = [np.polyfit(np.log(HS), np.log(e), 1)[0] for e in np.array([r[0] for r in results]).T]
    assert abs(slopes[0] - 2) < 0.1, results
    assert slopes[1] > 2.9, results  # 3.3 for rmsprop, whose h^3 is small here
    if not once:
        apart = [float(r[1]) for r in results]
        assert apart[-1] < 0.02, apart
        assert apart[-1] < 0.6 * apart[-2] < 0.36 * apart[-3], apart


@pytest.mark.parametrize(
    "field",
    [
        pytest.param(reshuffled_field, id="once an epoch", marks=pytest.mark.slow),
        pytest.param(
            lambda *a, **k: sampled_field(*a, **k).drift,
            id="with replacement",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_drawn_sequences_are_right_where_a_formula_is_known(field):
    """Adam: no error at h^0 but for its kept state, and that of chance at h^1."""
    state, h, data = (START, {"nu": jnp.array([2.0, 3.0])}), 1e-4, batches(3)
    exact = [field(adam(0.5), loss, h, data, order=p, rates_at=AT)(LATE, state) for p in (0, 1)]
    drawn = {"sequences": 256, "key": jax.random.key(0)}
    found = [
        jax.jit(field(adam(0.5), loss, h, data, order=p, rates_at=AT, **drawn).field)(LATE, state)
        for p in (0, 1)
    ]
    assert np.allclose(found[0][0], exact[0][0], rtol=1e-5)
    first = [(b[0] - a[0]) / h for a, b in (exact, found)]
    assert np.allclose(first[1], first[0], rtol=0.1, atol=0.1), first


@pytest.mark.slow
def test_noise_of_what_is_affine_has_no_error():
    method, data = igr.methods.heavy_ball(0.5), batches(3)
    fields = [
        sampled_field(method, loss, 0.01, data),
        sampled_field(method, loss, 0.01, data, sequences=4, key=jax.random.key(1)),
    ]
    rows = [jax.vmap(f.diffusion(0.0, START, None).mv)(jnp.eye(f.num_examples)) for f in fields]
    covariances = [r.T @ r for r in rows]
    np.testing.assert_allclose(covariances[1], covariances[0], rtol=1e-10)


def test_bad_input():
    method, data = RULES["clipped momentum"][0](), batches(2)
    with pytest.raises(UnansweredError, match="average over sequences of batches, sequences=64"):
        reshuffled_field(method, loss, 0.1, data)(0.0, START)
    with pytest.raises(ValueError, match="sequences are drawn at random: give key="):
        reshuffled_field(method, loss, 0.1, data, sequences=8)
    with pytest.raises(ValueError, match="sequences must be at least 2; got 1"):
        sampled_field(method, loss, 0.1, data, sequences=1, key=jax.random.key(0))


@pytest.mark.slow
def test_an_optimizer_as_it_stands():
    """Momentum, then clipped by the norm: mean and spread of 40000 runs at a time of one."""
    make = lambda h: optax.chain(
        optax.ema(0.5, debias=False),
        optax.clip_by_global_norm(1.0),
        optax.scale_by_learning_rate(h),
    )
    m, h, before, steps, count = 4, 0.02, 20, 50, 40000
    data, optimizer = batches(m), make(h)
    orders = jax.random.randint(jax.random.key(1), (count, before + steps), 0, m)

    def step(carry, k, moves=1.0):
        x, state = carry
        g = jax.grad(loss)(x, jax.tree.map(lambda d: d[k], data))
        updates, state = optimizer.update(g, state, x)
        return (x + moves * updates, state), None

    def one(order):
        start = (START, optimizer.init(START))
        full, _ = jax.lax.scan(lambda c, k: step(c, k, 0.0), start, order[:before])
        return jax.lax.scan(step, full, order[before:])[0][0]

    x = jax.jit(jax.vmap(one))(orders)
    end, uncertain = jnp.mean(x, 0), 3 * jnp.linalg.norm(jnp.std(x, 0)) / count**0.5
    method = igr.from_optax(make, certify=False)
    drawn = {"sequences": 64, "key": jax.random.key(2)}
    closed = [spread_field(sampled_field(method, loss, h, data, order=p, **drawn)) for p in (0, 1)]
    start = START, jnp.zeros((2, 2))
    ends = [jax.jit(lambda f=f: flowed(f, start, h * steps, 25))() for f in closed]
    zero, one = (float(jnp.linalg.norm(mean - end)) for mean, _ in ends)
    assert zero > 3 * uncertain
    assert one < zero / 3 + uncertain, (zero, one, uncertain)
    found = jnp.cov(x.T, bias=True)
    np.testing.assert_allclose(ends[1][1], found, rtol=0.1, atol=0.05 * found.max())
