"""Fields of rules that keep states: schedule-free SGD, Adafactor, LAMB."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import igr
from igr.flows import rules
from tests.flows.fields.test_rules import STEPS
from tests.quick import quick

KEPT = {
    "schedule-free": (
        lambda: rules.schedule_free_sgd(0.9),
        lambda h: optax.contrib.schedule_free(optax.sgd(h), h, b1=0.9),
    ),
    "Adafactor": (
        lambda: rules.adafactor(min_dim_size_to_factor=2),
        lambda h: optax.adafactor(h, min_dim_size_to_factor=2),
    ),
}


@pytest.mark.parametrize("which", quick(list(KEPT), "schedule-free"))
def test_kept_states_run_as_in_optax(tanh_network, which):
    describe, optimizer = KEPT[which]
    value_fn, params = tanh_network
    own, real = (
        igr.run(tx, value_fn, params, 12, record_every=4)
        for tx in (igr.flows.optimizer_of(describe(), 0.05), optimizer(0.05))
    )
    # optax works out the share that Adafactor's averages take in from a count in float32.
    rtol = 1e-6 if which == "Adafactor" else 1e-10
    for a, b in zip(*map(jax.tree.leaves, (own.params, real.params)), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol / 1e3)


def test_the_average_of_a_schedule_free_method_is_an_output(tanh_network):
    value_fn, params = tanh_network
    real = optax.contrib.schedule_free(optax.sgd(0.05), 0.05, b1=0.9)
    done = igr.run(real, value_fn, params, 7)
    expected = optax.contrib.schedule_free_eval_params(done.state, done.last)
    read = dict(rules.schedule_free_sgd(0.9).outputs)["x"]
    found = read({"theta": done.last, "z": done.state.z})
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("which", KEPT)
def test_slopes_with_kept_states(tanh_network, which, order):
    method = KEPT[which][0]()
    slope = igr.observed_order(
        method, tanh_network.value_fn, tanh_network.params, order, [h / 4 for h in STEPS]
    )
    assert slope == pytest.approx(order + 2, abs=0.1), slope.errors


@pytest.mark.slow
def test_schedule_free_sgd_is_followed(tanh_network):
    # The real optimizer, its z read from its own state: at order 1 much closer than at order 0.
    real = optax.contrib.schedule_free(optax.sgd(0.02), 0.02, b1=0.9)
    found = igr.compare(
        *tanh_network, 0.02, 100, (0, 1), rules.schedule_free_sgd(0.9), optimizer=real, burn_in=20
    )
    assert found.distance[0][-1] < 0.05 * found.travelled[-1]
    assert found.distance[1][-1] < 0.1 * found.distance[0][-1]


@pytest.mark.slow
def test_a_weight_without_a_gradient_leaves_the_field_finite():
    """As at pixels that are always dark: a second moment of 0 stands still, and so does its root.

    Held against the same problem without that weight, which enters by its size alone.
    """
    x = jnp.array([[1.0, 0.0, 2.0], [0.5, 0.0, -1.0]])
    params = jnp.array([0.3, -0.2, 0.7])
    nu = jnp.array([0.2, 0.0, 0.1])

    def value_fn(p):
        return jnp.mean(jnp.cosh(x @ p))

    method = igr.from_optax(optax.lamb, params=params, certify=False)
    assert method.kept == ("nu",)
    h, t = 1e-3, 0.05
    field = igr.vector_field(igr.modified_equation(method, 1), value_fn, h)
    found = field(t, (params, {"nu": (nu,)}), None)[0]
    assert np.isfinite(found).all()
    used = np.array([0, 2])
    kept = params[used]
    moving = igr.from_optax(optax.lamb, params=kept, certify=False)
    rest = igr.vector_field(
        igr.modified_equation(moving, 1), lambda p: jnp.mean(jnp.cosh(x[:, used] @ p)), h
    )(t, (kept, {"nu": (nu[used],)}), None)[0]
    np.testing.assert_allclose(found[1], 0, atol=1e-15)
    # The trust ratio is |theta| times a function of the rest, to h^0.
    size, less = (float(jnp.linalg.norm(p)) for p in (params, kept))
    np.testing.assert_allclose(found[used] / size, rest / less, rtol=5e-3)
