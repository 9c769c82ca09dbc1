"""A monitor of the sharpness that Adam and SGD meet, each against its own limit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import igr
from igr.diagnostics import adam_preconditioner, preconditioned_sharpness


def _pull(w, x):
    return jnp.sum(x * w**2) / 2


BATCH = jnp.array([[1.0, 4.0], [3.0, 2.0]])


def test_adam_is_watched_by_its_own_limit():
    """H = diag(2, 3) and nu of one step g^2: C = 10/|g|, known by hand."""
    loss = lambda w: jnp.mean(jax.vmap(_pull, (None, 0))(w, BATCH))
    w = jnp.array([1.0, 1.0])
    optimizer = optax.adam(0.1)
    _, state = optimizer.update(jax.grad(loss)(w), optimizer.init(w))

    def met(both, batch):
        return preconditioned_sharpness(loss, both[0], adam_preconditioner(both[1])).value

    def monitor(h):
        measures = {"preconditioned_sharpness": met, "sharpness": lambda both, batch: 1e9}
        return igr.Monitor(measures, learning_rate=h, method=igr.methods.adam())

    row = monitor(3.7)((w, state), BATCH)  # a huge plain sharpness says nothing about Adam
    np.testing.assert_allclose(row["preconditioned_sharpness"], 10.0, rtol=1e-6)
    with pytest.warns(UserWarning, match=r"times the preconditioned sharpness, 39, has passed 38"):
        monitor(3.9)((w, state), BATCH)


def test_batch_sharpness_has_the_limit_of_sgd():
    w = jnp.array([1.0, 0.0])
    monitor = igr.Monitor(["batch_sharpness"], example_loss_fn=_pull, learning_rate=0.9)
    row = monitor(w, BATCH)
    np.testing.assert_allclose(row["batch_sharpness"], 2.0)
    np.testing.assert_allclose(row["h_batch_sharpness"], 1.8)
    steeper = igr.Monitor(["batch_sharpness"], example_loss_fn=_pull, learning_rate=1.1)
    with pytest.warns(UserWarning, match=r"times the batch sharpness, 2.2, has passed 2"):
        steeper(w, BATCH)
