"""The optimizers that the figures run are the ones they describe."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import igr
from analysis.studies.igr.optimizers import OPTIMIZERS
from igr.flows import optimizer_of
from igr.flows.steps.elementwise import ElementwiseState
from igr.flows.steps.linear import RecurrenceState
from tests.quick import quick

START = jnp.array([0.3, -1.0, 2.0])


def value_fn(p):
    return jnp.sum(jnp.arange(1.0, 4) * jnp.cosh(p / 3))


@pytest.mark.parametrize(
    "name", quick([name for name in OPTIMIZERS if "adam" not in name], "sgd, momentum 0.9")
)
def test_descriptions_are_of_what_is_run(name):
    optimizer = OPTIMIZERS[name]
    h = optimizer.learning_rate
    real = igr.run(optimizer.real(h), value_fn, START, 60).params
    described = igr.run(optimizer_of(optimizer.method, h), value_fn, START, 60).params
    np.testing.assert_allclose(described, real, rtol=1e-6)


@pytest.mark.parametrize("name", ["adam", pytest.param("adamw, decay 0.1", marks=pytest.mark.slow)])
def test_a_step_of_adam_from_the_state_of_the_real_one(name):
    """From its own start the described Adam does not correct the bias of its first moment."""
    optimizer = OPTIMIZERS[name]
    h, steps = optimizer.learning_rate, 300
    run = igr.run(optimizer.real(h), value_fn, START, steps, record_every=steps)
    gradient = jax.grad(value_fn)(run.last)
    real, _ = optimizer.real(h).update(gradient, run.state, run.last)
    mu, nu = optax.tree.get(run.state, "mu"), optax.tree.get(run.state, "nu")
    filled = ElementwiseState(jnp.array(300.0), {"mu": RecurrenceState((0.9 * mu,))}, {"nu": nu})
    described, _ = optimizer_of(optimizer.method, h).update(gradient, filled, run.last)
    np.testing.assert_allclose(described, real, rtol=1e-6)
