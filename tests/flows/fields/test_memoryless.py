"""Stochastic equations of rules without memory: the law of the run, its drift and its noise.

The run's law is exact: E phi after each step from Chebyshev nodes, over all batches. That of the
equation is exp(T L) of its generator at the same nodes.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy
from scipy.special import erf, ndtri

import igr
from igr.backward_error import methods
from igr.flows.fields.noise.memoryless import stochastic_rule_field
from tests.flows.chebyshev import NODES, differentiation, interpolation, slope

BATCHES = np.array([-0.9, 0.2, 1.3])
TIME = 0.5
HS = TIME / np.array([16, 32, 64, 128])
FUNCTIONS = np.stack([NODES, NODES**2, np.cos(2 * NODES)], axis=1)
BENT = methods.rule(lambda g: jnp.tanh(g) * 0.8, name="softened sign")


def loss(x, a):
    return x**2 / 2 + a * x - x**4 / 20


def psi(x, a):
    return 0.8 * np.tanh(x + a - x**3 / 5)


def after_run(h):
    step = np.mean([interpolation(NODES - h * psi(NODES, a)) for a in BATCHES], axis=0)
    return np.linalg.matrix_power(step, round(TIME / h)) @ FUNCTIONS


def _parts(field, points, m):
    drift = jax.vmap(lambda x: field.drift(0.0, x, None))(points)
    rows = jax.vmap(lambda x: jax.vmap(field.diffusion(0.0, x, None).mv)(jnp.eye(m)))(points)
    return drift, jnp.sum(rows**2, axis=1)


@jax.jit
def _of_equation(h):
    field = stochastic_rule_field(BENT, loss, h, jnp.array(BATCHES))
    return _parts(field, jnp.array(NODES), len(BATCHES))


def after_process(h, noise=1.0):
    drift, variance = map(np.array, _of_equation(h))
    first = differentiation()
    generator = drift[:, None] * first + noise * variance[:, None] / 2 * (first @ first)
    return scipy.linalg.expm(TIME * generator) @ FUNCTIONS


def test_weak_order_one():
    errors = [np.abs(after_process(h) - after_run(h)).max(axis=0) for h in HS]
    for errors_of_one in np.transpose(errors):
        assert slope(HS, errors_of_one) == pytest.approx(1, abs=0.1)


def test_the_variance_is_that_of_the_noise():
    # Of order h itself: right to a relative O(h) with the noise, and wrong by half with half of it.
    def variance(functions):
        return functions[:, 1] - functions[:, 0] ** 2

    inside = np.abs(NODES) < 0.6
    apart = {
        noise: [
            np.abs(variance(after_process(h, noise)) / variance(after_run(h)) - 1)[inside].max()
            for h in HS
        ]
        for noise in (1.0, 0.5)
    }
    assert slope(HS, apart[1.0]) == pytest.approx(1, abs=0.15)
    assert apart[0.5][-1] > 0.4


def test_sign_descent_with_gaussian_noise():
    # -erf(f'/(sqrt(2) sigma)) and h (1 - erf^2), the noise by its quantiles.
    m, sigma, h = 4001, 0.8, 0.05
    noise = jnp.array(sigma * ndtri((np.arange(m) + 0.5) / m))
    sign = methods.rule(lambda g: jnp.sign(g), name="sign descent")
    field = stochastic_rule_field(sign, lambda x, a: jnp.cosh(x) + a * x, h, noise)
    points = np.linspace(-1.5, 1.5, 7)
    drift = jax.jit(jax.vmap(lambda x: field.drift(0.0, x, None)))(jnp.array(points))
    expected = erf(np.sinh(points) / (np.sqrt(2) * sigma))
    np.testing.assert_allclose(drift, -expected, atol=2 / m)

    def square(x):
        # |noise|^2 summed over the unit increments, from what one of each sign does.
        up, down = jnp.zeros(m).at[-1].set(1.0), jnp.zeros(m).at[0].set(1.0)
        share = (jnp.sign(jnp.sinh(x) + noise) > 0).mean()
        operator = field.diffusion(0.0, x, None)
        return m * (share * operator.mv(up) ** 2 + (1 - share) * operator.mv(down) ** 2)

    inner = points[np.abs(points) < 1.2]
    found = jax.jit(jax.vmap(square))(jnp.array(inner))
    expected = erf(np.sinh(inner) / (np.sqrt(2) * sigma))
    np.testing.assert_allclose(found, h * (1 - expected**2), atol=h * 5 / m)


def test_rules_that_couple_are_averaged_over_batches():
    # Clipping by the norm of each batch: the mean of what is clipped, its covariance by numpy.
    clip = igr.flows.rules.stateless(optax.clip_by_global_norm(1.0))
    method = methods.rule(lambda g, theta: clip(g, theta), name="clipped SGD")
    rows = np.random.default_rng(0).standard_normal((5, 3)) * 2
    params = {"w": jnp.array([0.3, -0.2, 0.5])}
    field = stochastic_rule_field(
        method, lambda p, a: jnp.sum(a * p["w"] ** 2), 0.1, jnp.array(rows)
    )
    each = 2 * rows * np.array(params["w"])
    each = each * np.minimum(1, 1 / np.linalg.norm(each, axis=1))[:, None]
    drift, columns = jax.jit(
        lambda p: (field.drift(0.0, p)["w"], jax.vmap(field.diffusion(0.0, p).mv)(jnp.eye(5))["w"])
    )(params)
    np.testing.assert_allclose(drift, -each.mean(axis=0), rtol=1e-12)
    expected = 0.1 * np.cov(each.T, bias=True)
    np.testing.assert_allclose(columns.T @ columns, expected, rtol=1e-10, atol=1e-14)


def test_refuses_a_memory():
    remembers = methods.rule(lambda m: m, {"m": methods.ema(0.9)}, name="momentum")
    with pytest.raises(ValueError, match="momentum remembers m: a memory mixes the noise"):
        stochastic_rule_field(remembers, loss, 0.1, jnp.array(BATCHES))
    timed = methods.rule(lambda g, t: g / t, name="timed")
    with pytest.raises(ValueError, match="timed reads t; a rule of a batch reads g, theta and h"):
        stochastic_rule_field(timed, loss, 0.1, jnp.array(BATCHES))
    with pytest.raises(TypeError, match="method must be a rule without memory"):
        stochastic_rule_field(methods.gradient_descent(), loss, 0.1, jnp.array(BATCHES))
