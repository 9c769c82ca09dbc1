"""The optimizers that the figures run are the ones they describe."""

import jax.numpy as jnp
import numpy as np
import pytest

import igr
from igr.flows import optimizer_of
from paper_figures.igr_optimizers import OPTIMIZERS


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_descriptions_are_of_what_is_run(name):
    """Once the memory has filled, a real step from a state is the described one from that state."""
    optimizer = OPTIMIZERS[name]
    h, start = optimizer.learning_rate, jnp.array([0.3, -1.0, 2.0])

    def value_fn(p):
        return jnp.sum(jnp.arange(1.0, 4) * jnp.cosh(p / 3))

    real = igr.run(optimizer.real(h), value_fn, start, 300, record_every=10).params
    described = optimizer_of(optimizer.method, h)
    ours = igr.run(described, value_fn, start, 300, record_every=10).params
    # Adam corrects the bias of its first moment too: the first steps are longer than described.
    late = np.diff(np.asarray(real[-5:]), axis=0)
    np.testing.assert_allclose(np.diff(np.asarray(ours[-5:]), axis=0), late, rtol=0.02)
    if "adam" not in name:
        np.testing.assert_allclose(ours, real, rtol=1e-6)
