"""An optimizer handed over to `compare`, with no description and no further argument."""

import jax
import optax
import pytest

import igr
from analysis.data import Classification, digits
from analysis.models.tanh_network import cross_entropy, tanh_network


@pytest.mark.slow
def test_adamw_on_digits():
    data = digits()
    some = Classification(data.x[:360], data.y[:360], data.num_classes)
    seen = igr.compare(
        cross_entropy(some),
        tanh_network(some, jax.random.key(0)),
        1e-3,
        300,
        (0, 1),
        optimizer=lambda h: optax.adamw(h),
    )
    shares = {p: float(d[-1] / seen.travelled[-1]) for p, d in seen.distance.items()}
    assert shares[0] < 0.03
    assert shares[1] < 0.003
