"""What the memory of a second moment does turns its sign with the size of the batches.

RMSProp on batches that come once an epoch, gradients x - c_b with c_b = +-s/sqrt(B). A longer
memory lets the second moment lag behind, which brakes where gradients fall; and it takes the batch
of the step itself less into account, whose large gradients it would shorten.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import igr
from igr.flows import reshuffled_field
from tests.flows.fields.batches.test_reshuffled_field import flowed

H, STEPS, M = 4e-4, 500, 4
SHORT, LONG = 0.9, 0.98
SIGNS = jnp.array([1.0, 1.0, -1.0, -1.0])


def loss(x, c):
    return (x - c) ** 2 / 2


def ends_of_runs(b2, size, orders):
    """By hand, from a second moment that is the mean square."""
    offsets = SIGNS / size**0.5

    def one(order):
        def step(carry, k):
            x, nu = carry
            g = x - offsets[k]
            nu = b2 * nu + (1 - b2) * g**2
            return (x - H * g / jnp.sqrt(nu), nu), None

        return jax.lax.scan(step, (1.0, 1 + 1 / size), order)[0][0]

    return jax.vmap(one)(orders)


def end_of_flow(b2, size, order):
    method = igr.methods.rmsprop(b2, 0.0, keep=("nu",))
    field = reshuffled_field(method, loss, H, SIGNS / size**0.5, order=order)
    start = jnp.array(1.0), {"nu": jnp.array(1 + 1 / size)}
    return flowed(field, start, H * STEPS, 250)[0]


def by_formula(size):
    """h times 49 - 9 steps of lag, less half of what of itself a step no longer sees, at x = 1."""
    square = 1 + 1 / size
    lag = H * (LONG / (1 - LONG) - SHORT / (1 - SHORT)) / square**2
    own = (LONG - SHORT) / 2 / 2 * (2 / size) / square**1.5
    return lag - own


@pytest.mark.slow
@pytest.mark.parametrize(("size", "sign"), [(1, -1), (16, 1)])
def test_a_longer_memory_hurries_in_small_batches_and_brakes_in_large(size, sign):
    keys = jax.random.split(jax.random.key(0), (400, STEPS // M))
    orders = jax.vmap(jax.vmap(lambda k: jax.random.permutation(k, M)))(keys).reshape(400, -1)
    runs = jax.jit(lambda b2: ends_of_runs(b2, size, orders))
    gained = runs(LONG) - runs(SHORT)  # the same orders: little of the noise is left
    real, uncertain = float(jnp.mean(gained)), float(jnp.std(gained)) / 20
    zero, one = (float(end_of_flow(LONG, size, p) - end_of_flow(SHORT, size, p)) for p in (0, 1))
    assert sign * real > 10 * uncertain, (real, uncertain)
    assert abs(one - real) < 0.1 * abs(real) + 3 * uncertain, (real, uncertain, zero, one)
    # While the second moment settles the lag is less; the rate is that of the formula.
    assert 0.5 < real / (by_formula(size) * H * STEPS) < 1.5, (real, by_formula(size) * H * STEPS)


@pytest.mark.slow
def test_where_it_turns():
    """h 40/V^2 = 0.04 V^(-3/2)/B: between the two sizes, where the flows say so too."""
    sizes = np.linspace(1, 16, 1501)
    turns = sizes[np.argmin(np.abs([by_formula(b) for b in sizes]))]
    assert 2.5 < turns < 3.5
    apart = [
        float(end_of_flow(LONG, b, 1) - end_of_flow(SHORT, b, 1)) for b in (turns / 2, 2 * turns)
    ]
    assert apart[0] < 0 < apart[1]
