"""The two-phase flow against maps with a known oscillation, dense matrices and real runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import igr
from igr.flows import two_phase_field
from igr.flows.edge import two_phase_flow

METHODS = igr.methods


def _sextic(x):
    """g = 2 x - 2 x^3 + x^5: stable oscillations above 2/h = 2 sharpness, of a known size."""
    return jnp.sum(x**2 - x**4 / 2 + x**6 / 6)


def _swing_of(limit, h):
    """b with h g(b) = limit b, the smallest."""
    roots = np.roots([1, -2, 2 - limit / h])  # in b^2
    return np.sqrt(min(roots.real[roots.real > 0]))


@pytest.mark.slow
def test_order_0_is_the_step_on_both_phases(network):
    """a + h a' and b + h b' put together are the real steps of a + b and a - b."""
    h = 0.15
    field = two_phase_field(METHODS.gradient_descent(), network.value_fn, h, 0)
    phases = field.start(network.params)
    rate = field.held(0.0, phases)
    a, b = phases.params, phases.swing
    add = lambda x, y, s=1.0: jax.tree.map(lambda p, q: p + s * q, x, y)
    following = add(a, rate.params, h), add(b, rate.swing, h)
    for sign in (1.0, -1.0):
        at = add(a, b, sign)
        stepped = add(at, jax.grad(network.value_fn)(at), -h)
        together = add(following[0], following[1], -sign)  # the phase of the next step
        for x, y in zip(jax.tree.leaves(together), jax.tree.leaves(stepped), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("method", "limit", "h"),
    [
        (METHODS.gradient_descent(), 2.0, 1.05),
        (METHODS.heavy_ball(0.5), 3.0, 1.55),
        (METHODS.nesterov(0.5), 1.5, 0.8),
    ],
    ids=["gradient descent", "heavy ball", "Nesterov"],
)
def test_amplitude_of_a_known_oscillation(method, limit, h):
    """x[n+1] = -x[n] at |x| = b where h W(i pi) g(b) = 2 b, W that of the memory."""
    sol = two_phase_flow(method, _sextic, jnp.array([0.2]), h, h * 400, record_every=400)
    expected = _swing_of(limit, h)
    assert float(sol.amplitude[-1]) == pytest.approx(expected, abs=1e-6)
    assert float(np.abs(sol.ys[-1, 0])) < 1e-6
    assert float(sol.value[-1]) == pytest.approx(float(_sextic(jnp.array(expected))), rel=1e-5)


def test_order_is_that_of_the_growth():
    """At h lambda = 2 + e the swing grows by 1 + e a step: its rate is log(1 + e) to h^order."""
    for e in (0.1, 0.05):
        for order in range(4):
            value_fn = lambda x, e=e: (2 + e) * jnp.sum(x**2) / 2
            field = two_phase_field(METHODS.gradient_descent(), value_fn, 1.0, order)
            phases = field.start(jnp.array([1.0]))
            rate = float((field(0.0, phases).swing / phases.swing)[0])
            series = sum((-1) ** (j - 1) * e**j / j for j in range(1, order + 2))
            assert rate == pytest.approx(series, rel=1e-9)


@pytest.mark.slow
def test_follows_a_network_past_the_edge(network, run_past_the_edge):
    """48 parameters, 800 steps, two bursts of oscillations: against the run, and gradient flow."""
    h, params, points, middle = run_past_the_edge
    steps = 800
    sol = two_phase_flow(
        METHODS.gradient_descent(), network.value_fn, params, h, h * steps, record_every=50
    )
    count = np.round(np.asarray(sol.ts) / h).astype(int)
    flat = np.asarray(jax.vmap(lambda p: ravel_pytree(p)[0])(sol.ys))
    apart = np.linalg.norm(flat - middle[count - 1], axis=1)
    field = igr.vector_field(
        igr.modified_equation(METHODS.gradient_descent(), 0), network.value_fn, h
    )
    start = network.unravel(jnp.asarray(middle[0]))
    flow = igr.flow(field, start, h * (steps - 1), ts=h * jnp.asarray(count - 1), rtol=1e-6)
    plain = np.asarray(jax.vmap(lambda p: ravel_pytree(p)[0])(flow.ys))
    assert apart.max() < 0.01 * np.linalg.norm(plain - middle[count - 1], axis=1).max()
    amplitude = np.linalg.norm(points[count] - middle[count - 1], axis=1)
    assert amplitude.max() > 0.02  # it does oscillate
    np.testing.assert_allclose(sol.amplitude, amplitude, rtol=0.15, atol=1e-4)


@pytest.mark.slow
def test_directions_confine_the_swing_to_the_sharpest(network, run_past_the_edge):
    """Against the dense Hessian; and with two directions of it the flow is that of the whole."""
    h, params, _, middle = run_past_the_edge
    arguments = (METHODS.gradient_descent(), network.value_fn, params, h, 40 * h)
    sol = two_phase_flow(*arguments, directions=2, record_every=20)
    whole = two_phase_flow(*arguments, record_every=20)
    for i in range(len(sol.ts)):
        at = ravel_pytree(jax.tree.map(lambda x, i=i: x[i], sol.ys))[0]
        swing = ravel_pytree(jax.tree.map(lambda x, i=i: x[i], sol.swing))[0]
        values, vectors = np.linalg.eigh(jax.hessian(network.flat_loss)(at))
        np.testing.assert_allclose(sol.eigenvalues[i], values[::-1][:2], rtol=1e-4)
        outside = swing - vectors[:, -2:] @ (vectors[:, -2:].T @ swing)
        assert np.linalg.norm(outside) < 0.03 * np.linalg.norm(swing)
        other = ravel_pytree(jax.tree.map(lambda x, i=i: x[i], whole.ys))[0]
        assert np.linalg.norm(at - other) < 1e-3 * np.linalg.norm(other - middle[0]) + 1e-6


@pytest.mark.slow
def test_the_field_alone_keeps_its_directions(network, run_past_the_edge):
    """In `igr.flow` they are variables, and relax to the sharpest of where the flow has got."""
    h, params, _, _ = run_past_the_edge
    field = two_phase_field(METHODS.gradient_descent(), network.value_fn, h, 0, directions=2)
    sol = igr.flow(field, field.start(params), 20 * h, rtol=1e-3)
    last = jax.tree.map(lambda x: x[-1], sol.ys)
    at = ravel_pytree(last.params)[0]
    vectors = np.linalg.eigh(jax.hessian(network.flat_loss)(at))[1][:, -2:]
    found = np.asarray(jax.vmap(lambda p: ravel_pytree(p)[0])(last.directions))
    np.testing.assert_allclose(np.linalg.svd(found @ vectors)[1], 1.0, atol=0.01)


@pytest.mark.slow
def test_adam_and_integer_leaves_and_single_precision():
    """Adam's moments swing too; in float32 on a ReLU network, with a leaf that is no parameter."""
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (12, 3), jnp.float32)
    params = {
        "w": jax.random.normal(keys[1], (3, 4), jnp.float32),
        "v": jax.random.normal(keys[2], (4,), jnp.float32),
        "n": jnp.array(2),
    }
    value_fn = lambda p: jnp.mean((jax.nn.relu(x @ p["w"]) @ p["v"] - x[:, 0]) ** 2)
    method = METHODS.adam(0.9, 0.99, eps=1e-3)
    h, steps = 0.01, 60
    sol = two_phase_flow(method, value_fn, params, h, h * steps, record_every=59)
    assert sol.ys["w"].dtype == jnp.float32
    assert int(sol.ys["n"]) == 2
    assert bool(sol.reached.all())
    w = igr.run(igr.flows.optimizer_of(method, h), value_fn, params, steps + 1).params
    middle = jax.tree.map(lambda v: (v[-3] + 2 * v[-2] + v[-1]) / 4, {k: w[k] for k in "wv"})
    apart = sum(float(jnp.sum((middle[k] - sol.ys[k][-1]) ** 2)) for k in "wv") ** 0.5
    moved = sum(float(jnp.sum((middle[k] - params[k]) ** 2)) for k in "wv") ** 0.5
    assert apart < 0.02 * moved


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"h": 0.0}, ValueError, "h must be positive"),
        ({"order": -1}, ValueError, "order must be at least 0"),
        ({"directions": 0}, ValueError, "directions must be at least 1"),
        ({"directions": 3}, ValueError, "number of parameters, 2"),
        ({"t1": 2.5}, ValueError, "whole number of steps"),
        ({"t1": 1.0}, ValueError, "at least two steps"),
        ({"value_fn": lambda x: x}, ValueError, "scalar"),
        ({"value_fn": lambda x: jnp.inf * jnp.sum(x)}, ValueError, "finite at the start"),
        ({"method": "sgd"}, TypeError, "method"),
        ({"method": METHODS.adam(), "directions": 2}, TypeError, "preconditioner"),
    ],
)
def test_bad_input(change, error, match):
    given = {
        "method": METHODS.gradient_descent(),
        "value_fn": lambda x: jnp.sum(x**2),
        "params": jnp.ones(2),
        "h": 1.0,
        "t1": 4.0,
    } | change
    with pytest.raises(error, match=match):
        two_phase_flow(**given)


@pytest.mark.slow
@pytest.mark.parametrize("which", ["two-phase", "central"])
def test_half_precision(which):
    """e^-1 at t = 1 on a quadratic, in steps that half precision rounds away from where it is."""
    loss, start = lambda w: jnp.sum(w**2) / 2, jnp.ones(2, jnp.bfloat16)
    if which == "central":
        found = igr.flows.central_flow(loss, start, 1e-3, 1.0, directions=1, record_every=1000)
    else:
        found = two_phase_flow(
            igr.methods.gradient_descent(), loss, start, 1e-3, 1.0, record_every=1000
        )
    assert found.ys.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(found.ys[-1], float), np.exp(-1), rtol=0.01)


def test_a_time_in_words():
    loss = lambda w: jnp.sum(w**2)
    with pytest.raises(TypeError, match="t1 must be a number; got '1'"):
        igr.flows.two_phase_flow(igr.methods.gradient_descent(), loss, jnp.ones(2), 0.1, "1")


def test_a_run_that_diverges_is_said_to():
    sol = two_phase_flow(
        METHODS.gradient_descent(), lambda x: jnp.sum(x**4), jnp.ones(1), 1.0, 100.0, record_every=3
    )
    assert bool(sol.reached[0])
    assert not bool(sol.reached[-1])
