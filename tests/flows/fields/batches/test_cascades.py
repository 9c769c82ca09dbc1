"""Memories that take in what others hold, or kept states: the mean against every order of batches.

The runs are optax's own updates, with their clocks slowed as h falls (`refined`); where nothing is
kept or a beta is a rate, plain optax.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

import igr
from igr.backward_error.protocols import UnansweredError
from igr.flows import reshuffled_field, sampled_field
from igr.flows.certifying.refined import refined
from igr.flows.fields.batches.as_rule import as_rule
from igr.flows.fields.batches.over_sequences import OverSequences, Sequences
from igr.flows.fields.batches.remembered import WITH_REPLACEMENT, reshuffled
from igr.flows.fields.batches.steps import BatchSteps
from igr.tracing import read_optimizer
from tests.flows.fields.batches.test_bent_memories import every
from tests.flows.fields.batches.test_reshuffled_field import (
    AT,
    B2,
    EPS,
    LATE,
    START,
    batches,
    flowed,
    loss,
)

HS = 0.0012 / 2.0 ** np.arange(3)
B = 0.02  # fades within the few steps that can be enumerated
MIDDLE = jnp.array([2.0, 3.0])  # where averages of squares are
SUM = jnp.array([1.0, 0.8])

# The optimizer, what its jumps are smoothed with, and its kept states in the middle of a run. The
# estimates of prodigy and dadapt_adamw grow there.
CASES = {
    "adan": (lambda h: optax.adan(h, B, B, B2, EPS), None, {"n": MIDDLE}),
    "optimistic_adam": (
        lambda h: optax.optimistic_adam(h, b1=B, b2=B2, eps=EPS),
        None,
        {"nu": MIDDLE},
    ),
    "optimistic_adam_v2": (
        lambda h: optax.optimistic_adam_v2(h, b1=B, b2=B2, eps=EPS),
        None,
        {"nu": MIDDLE},
    ),
    "novograd": (lambda h: optax.novograd(h, B, B, EPS, weight_decay=0.1), None, {}),
    "adopt": (lambda h: contrib.adopt(h, B, B2, EPS), 0.1, {"nu": MIDDLE}),
    "sm3": (lambda h: optax.sm3(h, B), None, {"mu": MIDDLE}),
    "prodigy": (
        lambda h: contrib.prodigy(h, (B, B2), eps=EPS, estim_lr0=0.5),
        None,
        {
            "estim_lr": (jnp.array(0.9),),
            "exp_avg_sq": (MIDDLE,),
            "grad_sum": (SUM,),
            "numerator_weighted": (jnp.array(3.0),),
            "params0": (START + 0.3,),
        },
    ),
    "dadapt_adamw": (
        lambda h: contrib.dadapt_adamw(h, (B, B2), eps=EPS),
        None,
        {
            "estim_lr": (jnp.array(0.9),),
            "exp_avg_sq": (MIDDLE,),
            "grad_sum": (SUM,),
            "numerator_weighted": (jnp.array(0.16),),
        },
    ),
}
FAST = ("sm3", "prodigy")  # whose kept states turn so fast that h has to be smaller
KNOWN = ("adopt", "sm3")  # linear in what they eliminate, which reads kept states alone


def read(name):
    make, smooth, kept = CASES[name]
    return read_optimizer(make, keep=tuple(kept), params=START, smooth=smooth)


def plain(name):
    """optax itself at a step h, with the share that an average takes in falling with it."""
    own = {
        "adan": lambda h: optax.adan(h, B, B, B2 ** (h / AT), EPS),
        "novograd": CASES["novograd"][0],
    }[name]
    count = "t" if name == "adan" else "count"

    def init(h):
        late = {count: jnp.array(10**6, jnp.int32)}
        return optax.tree.set(own(h).init(START), **late, **CASES[name][2])

    def update(h, g, state, x):
        return own(h).update(g, state, x)

    return init, update, lambda state: {y: optax.tree.get(state, y) for y in CASES[name][2]}


def slowed(name):
    """optax's own update with its clocks slowed."""
    at = refined(read(name))

    def init(h):
        state = at(h, AT).init(START)
        return state._replace(count=LATE / h, kept=CASES[name][2])

    def update(h, g, state, x):
        return at(h, AT).update(g, state, x)

    return init, update, lambda state: state.kept


def runs(real, orders, h, data):
    """Params and kept states after each step along every sequence, memories empty at the start."""
    init, update, kept = real

    def step(carry, k):
        x, state = carry
        g = jax.grad(loss)(x, jax.tree.map(lambda d: d[k], data))
        moves, state = update(h, g, state, x)
        return (x + moves, state), (x + moves, kept(state))

    one = lambda order: jax.lax.scan(step, (START, init(h)), order)[1]
    return jax.vmap(one)(orders)


def distance(a, b):
    apart = jax.tree.map(lambda x, y: jnp.sum((x - y) ** 2), a, b)
    return jnp.sqrt(sum(jax.tree.leaves(apart)))


def check_slopes(name, real, m, epochs, once=True, formula=False):
    """From the end of an epoch, or of some steps, over the next."""
    data, kept = batches(m), bool(CASES[name][2])
    described = read(name).method
    steps = m if once else 1
    if once:
        orders, sequences = every(m, epochs), every(m, epochs + 1)
        fill = (epochs // 2) * m
        sequences = Sequences(sequences, fill, sequences.shape[1] - fill - m, m)
    else:
        orders = every_sequence(m, epochs)
        sequences = Sequences(every_sequence(m, epochs + 1), epochs // 2, epochs - epochs // 2, 1)
    drawn = reshuffled(m) if once else WITH_REPLACEMENT

    def field(h, order):
        if formula and once:
            return reshuffled_field(described, loss, h, data, order=order, rates_at=AT)
        if formula:
            return sampled_field(described, loss, h, data, order=order, rates_at=AT).drift
        by_batch = BatchSteps(as_rule(described, affine=False), loss, h, AT, affine=False)
        return OverSequences(by_batch, sequences, drawn, data).drift(order)

    @jax.jit
    def found(h):
        x, y = jax.tree.map(lambda v: jnp.mean(v, 0), runs(real, orders, h, data))
        state = lambda k: jax.tree.map(lambda v: v[k], (x, y) if kept else x)
        ends = [flowed(field(h, order), state(-1 - steps), steps * h, 1) for order in (0, 1)]
        return jnp.stack([distance(end, state(-1)) for end in ends])

    # Four batches leave the memory fewer epochs to fill, which shows where h is small.
    hs = HS / 8 if name in FAST else 4 * HS if m == 4 else HS
    errors = np.array([found(h) for h in hs]).T
    slopes = [np.polyfit(np.log(hs), np.log(e), 1)[0] for e in errors]
    assert abs(slopes[0] - 2) < 0.1, (slopes, errors)
    assert 2.9 < slopes[1] < 3.5, (slopes, errors)


def every_sequence(m, steps):
    return np.stack(np.meshgrid(*[np.arange(m)] * steps, indexing="ij"), -1).reshape(-1, steps)


def slow(*names):
    return [pytest.param(n, marks=pytest.mark.slow) for n in names]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adan", "novograd"])
def test_plain_optax_over_all_orders(name):
    """Two batches, six epochs."""
    check_slopes(name, plain(name), 2, 6)


@pytest.mark.filterwarnings("ignore:.*optimistic_adam_v2")
@pytest.mark.parametrize("name", slow(*CASES))
def test_over_all_orders(name):
    check_slopes(name, slowed(name), 2, 6)


@pytest.mark.slow
@pytest.mark.parametrize("name", KNOWN)
def test_a_formula_over_all_orders(name):
    check_slopes(name, slowed(name), 2, 6, formula=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adan", "novograd"])
def test_four_batches_over_all_orders(name):
    """576 runs, and 13,824 sequences."""
    check_slopes(name, plain(name), 4, 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adan", "novograd", "prodigy", *KNOWN])
def test_batches_drawn_anew(name):
    check_slopes(name, slowed(name), 2, 9, once=False, formula=name in KNOWN)


@pytest.mark.filterwarnings("ignore:.*optimistic_adam_v2")
@pytest.mark.parametrize("name", [n for n in CASES if n not in KNOWN])
def test_what_has_no_formula_says_what_to_do(name):
    method, data = read(name).method, batches(2)
    state = (START, CASES[name][2]) if CASES[name][2] else START
    with pytest.raises(UnansweredError, match="sequences=64"):
        reshuffled_field(method, loss, 0.1, data)(LATE, state)


def test_a_state_that_every_batch_renews():
    last = igr.methods.rule(lambda y_before: y_before, kept={"y": (lambda g: g, 1)})
    with pytest.raises(UnansweredError, match="the state y of rule is renewed by every batch"):
        sampled_field(last, loss, 0.1, batches(2), sequences=4, key=jax.random.key(0))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adan", "novograd", "adopt"])
def test_noise_of_batches_drawn_anew(name):
    """By how much the covariance of params grows in two steps, over all sequences of ten."""
    data, kept = batches(2), bool(CASES[name][2])
    described, real, orders = read(name).method, slowed(name), every_sequence(2, 10)
    sequences = Sequences(every_sequence(2, 11), 5, 5, 1)

    @jax.jit
    def apart(h):
        x, y = runs(real, orders, h, data)
        mean = jax.tree.map(lambda v: jnp.mean(v, 0)[-3], (x, y))
        state = mean if kept else mean[0]
        if name in KNOWN:
            field = sampled_field(described, loss, h, data, rates_at=AT)
            noise, motions = field.diffusion(LATE, state, None).mv, field.num_examples
        else:
            by_batch = BatchSteps(as_rule(described, affine=False), loss, h, AT, affine=False)
            averaged = OverSequences(by_batch, sequences, WITH_REPLACEMENT, data)
            noise, motions = averaged.noise(LATE, state), averaged.motions
        rows = jax.vmap(noise)(jnp.eye(motions))
        rows = rows[0] if kept else rows
        off = x - jnp.mean(x, 0)
        cov = lambda k: off[:, k].T @ off[:, k] / len(orders)
        grown = (cov(-1) - cov(-3)) / (2 * h)
        return jnp.max(jnp.abs(grown - rows.T @ rows)) / jnp.max(jnp.abs(grown))

    found = [float(apart(h)) for h in HS]
    assert found[-1] < 0.03, found
    assert found[-1] < 0.6 * found[-2] < 0.36 * found[-3], found
