"""Mini-batches of 32 digits on a ReLU network, in single precision."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

import igr
from igr.flows import sampled_field, spread_field

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("single_precision")]


def weights(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=shape) * (2 / shape[0]) ** 0.5, jnp.float32)


def loss(p, batch):
    x, y = batch
    logits = jax.nn.relu(x @ p["w"] + p["b"]) @ p["v"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def over_digits(h, **options):
    pixels, classes = load_digits(return_X_y=True)
    x = jnp.asarray(pixels[:320] / 16, jnp.float32).reshape(10, 32, 64)
    params = {"w": weights(64, 32), "b": jnp.zeros(32), "v": weights(32, 10) / 2**0.5}
    return igr.compare(
        loss, params, h, epochs=6, batches=(x, jnp.asarray(classes[:320]).reshape(10, 32)),
        runs=16, key=jax.random.key(0), flows=(0, 1), **options,
    )  # fmt: skip


def is_beside_the_mean(seen, share):
    """Finite to the end, and no further off than a share of the way; errors told apart from it."""
    for p, distance in seen.distance.items():
        assert np.isfinite(distance).all()
        assert distance[-1] < share * seen.travelled[-1]
        assert seen.solver_error[p] < 0.05 * seen.travelled[-1]
        assert (seen.standard_error[p][1:] > 0).all()
        assert seen.standard_error[p][-1] < 0.03 * seen.travelled[-1]
    assert "standard error" in str(seen)


def test_reshuffled_sgd():
    seen = over_digits(0.1)
    is_beside_the_mean(seen, 0.03)
    assert seen.failed["kinks"][:6].all()
    # Where it is trusted order 1 is at least half as far off as order 0, but for the spread.
    apart = seen.distance[1] - seen.distance[0] / 2
    assert (apart <= 2 * seen.standard_error[1])[seen.trusted].all()


def test_momentum():
    """Flows that took a step of the solver an epoch left by 4e5, and were called trusted."""
    seen = over_digits(0.01, optimizer=lambda h: optax.sgd(h, momentum=0.9))
    is_beside_the_mean(seen, 0.1)
    apart = seen.distance[1] - seen.distance[0] / 2
    assert (apart <= 2 * seen.standard_error[1])[seen.trusted].all()


def test_adam():
    """Its equation knows its batches: the mean loss's was off by 37 % at order 0, and stopped."""
    seen = over_digits(1e-3, optimizer=lambda h: optax.adam(h), burn_in=200)
    assert not seen.notes
    assert np.isfinite(seen.distance[1]).all()
    assert seen.distance[1][-1] < 0.15 * seen.travelled[-1]  # the spread of the runs is 9 %
    assert (seen.distance[1] <= seen.distance[0])[1:].all()
    assert seen.failed["kinks"][:4].all()


def test_mean_and_covariance_of_batches_drawn_anew():
    """Against 20,000 runs of SGD: the mean is that of drift and spread, not of the drift alone."""
    h, examples = 0.02, (weights(12, 3, seed=1) * 6**0.5, weights(12, seed=2) * 6**0.5)
    start = {"w": weights(3, 5), "v": weights(5)}
    flat, _ = jax.flatten_util.ravel_pytree(start)
    of_one = lambda p, e: (jax.nn.relu(e[0] @ p["w"]) @ p["v"] - e[1]) ** 2 / 2

    @jax.jit
    def runs(key):
        def step(p, k):
            i = jax.random.randint(k, (), 0, 12)
            g = jax.grad(of_one)(p, jax.tree.map(lambda e: e[i], examples))
            return jax.tree.map(lambda x, d: x - h * d, p, g), None

        end = lambda k: jax.lax.scan(step, start, jax.random.split(k, 50))[0]
        ends = jax.vmap(end)(jax.random.split(key, 20_000))
        return jax.vmap(lambda p: jax.flatten_util.ravel_pytree(p)[0])(ends)

    ends = np.asarray(runs(jax.random.key(1)), float)
    field = sampled_field(igr.methods.gradient_descent(), of_one, h, examples)
    drift = igr.flow(field.drift, start, 1.0).ys
    none = jnp.zeros((flat.size, flat.size))
    mean, covariance = igr.flow(spread_field(field), (start, none), 1.0).ys

    def off(found):
        found = jax.flatten_util.ravel_pytree(jax.tree.map(lambda x: x[0], found))[0]
        return np.linalg.norm(found - ends.mean(0))

    assert off(mean) < 0.5 * off(drift)
    assert off(mean) < 0.03 * np.linalg.norm(ends.mean(0) - flat)
    exact = np.cov(ends.T)
    assert np.linalg.norm(covariance[0] - exact) < 0.25 * np.linalg.norm(exact)
