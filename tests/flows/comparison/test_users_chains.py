"""Chains as people write them, on a small ReLU network in single and half precision."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import igr

pytestmark = pytest.mark.usefixtures("single_precision")

STEPS, H = 60, 1e-3


def clipped_and_scheduled(h):
    rate = optax.warmup_cosine_decay_schedule(0.0, h, 20, 400)
    return optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(rate, weight_decay=0.1))


def half_precision_momentum(h):
    return optax.adam(h, mu_dtype=jnp.bfloat16)


def relu_network(dtype):
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], (40, 6)).astype(dtype)
    y = jax.random.randint(keys[1], (40,), 0, 3)
    params = {
        "w": (jax.random.normal(keys[2], (6, 16)) / 6**0.5).astype(dtype),
        "b": jnp.zeros(16, dtype),
        "v": (jax.random.normal(keys[3], (16, 3)) / 4).astype(dtype),
    }

    def loss(p):
        z = jax.nn.relu(x @ p["w"] + p["b"]) @ p["v"]
        return optax.softmax_cross_entropy_with_integer_labels(z.astype(jnp.float32), y).mean()

    return loss, params


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "dtype", "share"),
    [
        (clipped_and_scheduled, jnp.float32, 0.5),
        (half_precision_momentum, jnp.float32, 1.0),  # rounding of the momentum is most of it
        (clipped_and_scheduled, jnp.bfloat16, np.inf),  # steps below the spacing of the weights
    ],
)
def test_on_a_relu_network(make, dtype, share):
    loss, params = relu_network(dtype)
    seen = igr.compare(loss, params, H, STEPS, (0, 1), optimizer=make, record_every=20)
    for distance in seen.distance.values():
        assert np.isfinite(distance).all()
    assert seen.travelled[-1] > 0
    assert seen.distance[1][-1] < share * seen.distance[0][-1]
