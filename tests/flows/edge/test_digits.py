"""Past the edge on digits: both flows against the real run, and against gradient flow."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from sklearn.datasets import load_digits

import igr
from igr.flows import central_flow, two_phase_flow
from igr.flows.edge import midpoints

H, STEPS, EVERY = 0.6, 800, 8
CROSSES = (140, 160, 100, 180, 140)  # the step at which h times the sharpness passes 1.95, by seed
_SIZES = (64, 16, 16, 10)


def _problem(seed):
    digits = load_digits()
    x = jnp.asarray(digits.data[:200] / 16)
    x, y = x - x.mean(0), jax.nn.one_hot(digits.target[:200], 10)
    keys = jax.random.split(jax.random.key(seed), 5)
    params = [
        (0.5 * jax.random.normal(k, (a, b)) / a**0.5, jnp.zeros(b))
        for k, a, b in zip(keys, _SIZES, _SIZES[1:], strict=False)
    ]

    def value_fn(p):
        out = x
        for weights, bias in p[:-1]:
            out = jnp.tanh(out @ weights + bias)
        return jnp.mean(jnp.sum((out @ p[-1][0] + p[-1][1] - y) ** 2, 1)) / 2

    return value_fn, params


@pytest.mark.slow
def test_a_tenth_of_gradient_flows_distance_in_four_of_five_seeds():
    """tanh network of 1,482 parameters, 800 steps from where it crosses 2/h.

    Measured ratios at the end, two-phase of order 1: .068, .067, .059, .064, .039; central: .11,
    .098, .083, .11, .065, with three directions, all three of which come to the edge.
    """
    flat = jax.vmap(lambda p: ravel_pytree(p)[0])
    within = 0
    for seed, cross in enumerate(CROSSES):
        value_fn, params = _problem(seed)
        start = igr.run(optax.sgd(H), value_fn, params, cross, record_every=cross).last
        middle = midpoints(igr.run(optax.sgd(H), value_fn, start, STEPS + 2).params)
        first = jax.tree.map(lambda x: x[0], middle)
        end = np.asarray(flat(middle))[STEPS]
        method = igr.methods.gradient_descent()
        plain = igr.vector_field(igr.modified_equation(method, 0), value_fn, H)
        flows = {
            "gradient flow": igr.flow(plain, first, H * STEPS, rtol=1e-4).ys,
            "two-phase": two_phase_flow(
                method, value_fn, start, H, H * (STEPS + 1), record_every=EVERY
            ).ys,
            "central": central_flow(value_fn, first, H, H * STEPS, 3, record_every=EVERY).ys,
        }
        apart = {name: np.linalg.norm(flat(ys)[-1] - end) for name, ys in flows.items()}
        within += min(apart["two-phase"], apart["central"]) < 0.1 * apart["gradient flow"]
    assert within >= 4
