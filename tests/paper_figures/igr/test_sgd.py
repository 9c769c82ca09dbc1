"""The mean of many runs of SGD: losses and statistics by numpy, on a network of a few digits."""

import jax
import numpy as np
import pytest
from scipy.special import log_softmax

from analysis.data import Classification
from analysis.models.tanh_network import batch_loss, tanh_network
from analysis.studies.igr import sgd


@pytest.fixture(scope="module")
def small():
    rng = np.random.default_rng(0)
    data = Classification(rng.uniform(size=(13, 5)), rng.integers(0, 3, 13), 3)
    return data, tanh_network(data, jax.random.key(1))


def loss_by_hand(params, x, y):
    hidden, output = params["hidden"], params["output"]
    units = np.tanh(x @ hidden["weights"] + hidden["bias"])
    logits = units @ output["weights"] + output["bias"]
    return -log_softmax(logits, axis=1)[np.arange(len(y)), y].mean()


def test_batches_and_loss(small):
    data, params = small
    x, y = sgd.in_batches(data, examples=12, batches=4)
    loss = jax.jit(batch_loss)
    assert x.shape == (4, 3, 5)
    np.testing.assert_array_equal(x.reshape(12, 5), data.x[:12])
    for k in range(4):
        expected = loss_by_hand(params, data.x[3 * k : 3 * k + 3], data.y[3 * k : 3 * k + 3])
        np.testing.assert_allclose(loss(params, (x[k], y[k])), expected, rtol=1e-12)


def test_orders_are_permutations_and_their_opposites():
    orders = np.array(sgd.opposite_pairs(0, pairs=3, epochs=5, batches=4))
    assert orders.shape == (3, 2, 5, 4)
    np.testing.assert_array_equal(np.sort(orders, axis=-1), np.broadcast_to(range(4), orders.shape))
    np.testing.assert_array_equal(orders[:, 0], orders[:, 1, :, ::-1])
    assert len(np.unique(orders[:, 0].reshape(-1, 4), axis=0)) > 5


@pytest.mark.slow
def test_mean_error_and_spread(small):
    """Against all runs kept, one Euler step after the other."""
    data, params = small
    split = sgd.in_batches(data, examples=12, batches=3)
    orders = sgd.opposite_pairs(2, pairs=3, epochs=2, batches=3)
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    gradient = jax.jit(
        lambda p, x, y: jax.flatten_util.ravel_pytree(jax.grad(batch_loss)(unravel(p), (x, y)))[0]
    )
    ends = np.zeros((3, 2, flat.size))
    for i, pair in enumerate(np.array(orders)):
        for j, run in enumerate(pair):
            p = flat
            for k in run.ravel():
                p = p - 0.1 * gradient(p, split[0][k], split[1][k])
            ends[i, j] = p
    mean, error, spread = sgd.mean_and_errors(0.1, params, split, orders)
    last = jax.flatten_util.ravel_pytree(jax.tree.map(lambda x: x[-1], mean))[0]
    np.testing.assert_allclose(last, ends.mean(axis=(0, 1)), rtol=1e-12)
    of_pairs = ends.mean(axis=1)
    by_hand = np.sqrt(of_pairs.var(axis=0, ddof=1).sum() / 3)
    np.testing.assert_allclose(error[-1], by_hand, rtol=1e-6)
    apart = ends - ends.mean(axis=(0, 1))
    np.testing.assert_allclose(spread[-1], np.sqrt((apart**2).sum(-1).mean()), rtol=1e-6)
    assert error.shape == (3,)
    assert np.all(error[1:] < spread[1:])
