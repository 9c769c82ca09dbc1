"""Preconditioned and batch sharpness and the trace of roots, against dense matrices."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from igr.diagnostics import (
    adam_preconditioner,
    adam_stability_limit,
    batch_sharpness,
    preconditioned_sharpness,
    root_diagonal_trace,
)


class Normed(nn.Module):
    """Batch normalization, in training, and a ReLU."""

    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=False, param_dtype=float)(
            nn.Dense(4, param_dtype=float)(x)
        )
        return nn.Dense(2, param_dtype=float)(nn.relu(x))


@pytest.fixture(scope="module")
def normed():
    x = jax.random.normal(jax.random.key(1), (7, 3))
    y = jax.random.normal(jax.random.key(2), (7, 2))
    model = Normed()
    variables = model.init(jax.random.key(0), x)

    def value_fn(params):
        rest = {"batch_stats": variables["batch_stats"]}
        out, _ = model.apply({"params": params, **rest}, x, mutable=["batch_stats"])
        return jnp.mean((out - y) ** 2)

    params = variables["params"]
    flat, unravel = ravel_pytree(params)
    return value_fn, params, np.asarray(jax.hessian(lambda w: value_fn(unravel(w)))(flat))


def _example_loss(p, example):
    """A ReLU network on one example."""
    x, y = example
    return (jax.nn.relu(x @ p["w"]) @ p["v"] - y) ** 2 / 2


@pytest.fixture(scope="module")
def relu():
    keys = jax.random.split(jax.random.key(0), 4)
    params = {"w": jax.random.normal(keys[0], (3, 5)), "v": jax.random.normal(keys[1], (5,))}
    batch = jax.random.normal(keys[2], (10, 3)), jax.random.normal(keys[3], (10,))
    return params, batch


@pytest.mark.slow
def test_adams_metric_on_batch_normalization(normed):
    """Against numpy's eigenvalues of C^(1/2) H C^(1/2), C worked out from the gradients by hand."""
    value_fn, params, hessian = normed
    optimizer = optax.chain(optax.clip_by_global_norm(10.0), optax.adamw(1e-3, b1=0.8, b2=0.9))
    state, gradients = optimizer.init(params), []
    for scale in (1.0, -0.5, 2.0):
        g = jax.tree.map(
            lambda x, s=scale: s * (jnp.sin(jnp.arange(x.size)).reshape(x.shape)), params
        )
        gradients.append(np.asarray(ravel_pytree(g)[0]))
        _, state = optimizer.update(g, state, params)
    nu = sum(0.1 * 0.9 ** (2 - i) * g**2 for i, g in enumerate(gradients)) / (1 - 0.9**3)
    c = 1 / ((1 - 0.8**3) * (np.sqrt(nu) + 1e-8))
    preconditioner = adam_preconditioner(state, b1=0.8, b2=0.9)
    np.testing.assert_allclose(ravel_pytree(preconditioner)[0], c, rtol=1e-10)
    dense = np.sqrt(c)[:, None] * hessian * np.sqrt(c)
    found = preconditioned_sharpness(value_fn, params, preconditioner, tol=1e-6)
    assert bool(found.converged)
    np.testing.assert_allclose(found.value, np.linalg.eigvalsh(dense)[-1], rtol=1e-5)


def test_adam_is_stable_up_to_its_limit():
    """On a quadratic, with nu standing still: the run itself shrinks below it, grows above."""
    for factor, grows in ((0.97, False), (1.03, True)):
        b1, h = 0.8, 0.1
        curvature = factor * adam_stability_limit(h, b1)
        m, x = 0.0, 1.0
        for _ in range(800):
            m = b1 * m + (1 - b1) * curvature * x
            x -= h * m
        assert (abs(x) > 1) == grows


@pytest.mark.slow
def test_batch_sharpness_by_hand(relu):
    params, batch = relu
    flat, unravel = ravel_pytree(params)
    expected = []
    for i in range(3):
        part = jax.tree.map(lambda x, i=i: x[3 * i : 3 * i + 3], batch)
        loss = lambda w, part=part: jnp.mean(jax.vmap(_example_loss, (None, 0))(unravel(w), part))
        g, hessian = jax.grad(loss)(flat), jax.hessian(loss)(flat)
        expected.append(float(g @ hessian @ g / (g @ g)))
    found = jax.jit(lambda p, b: batch_sharpness(_example_loss, p, b, 3))(params, batch)
    np.testing.assert_allclose(found.value, np.mean(expected), rtol=1e-10)
    error = np.std(expected, ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(found.standard_error, error, rtol=1e-8)
    assert int(found.batches) == 3
    single = jax.tree.map(lambda x: x.astype(jnp.float32), (params, batch))
    found = batch_sharpness(_example_loss, *single, 3)
    assert found.value.dtype == jnp.float32
    np.testing.assert_allclose(found.value, np.mean(expected), rtol=1e-4)


def test_a_batch_without_a_gradient_is_left_out():
    loss = lambda w, x: x * jnp.sum(w**2) / 2
    found = batch_sharpness(loss, jnp.ones(2), jnp.array([0.0, 3.0]), 1)
    assert float(found.value) == pytest.approx(3.0, rel=1e-14)
    assert int(found.batches) == 1
    assert np.isnan(batch_sharpness(loss, jnp.ones(2), jnp.array([jnp.nan, 3.0]), 1).value)


@pytest.mark.slow
def test_roots_of_the_diagonal(relu):
    """With many probes near the dense sum; a matrix with a negative entry says what was clipped."""
    params, batch = relu
    flat, unravel = ravel_pytree(params)
    loss = lambda w: jnp.mean(jax.vmap(_example_loss, (None, 0))(unravel(w), batch))
    diagonal = np.diag(jax.hessian(loss)(flat))
    dense = np.sqrt(np.maximum(diagonal, 0)).sum()
    found = root_diagonal_trace(_example_loss, params, batch, probes=4000)
    np.testing.assert_allclose(found.value, dense, rtol=0.03)
    saddle = root_diagonal_trace(lambda w: 2 * w[0] ** 2 - 8 * w[1] ** 2, jnp.ones(2), probes=1)
    assert (float(saddle.value), float(saddle.clipped), float(saddle.clipped_size)) == (
        2.0,
        0.5,
        4.0,
    )


def test_bad_input(relu):
    params, batch = relu
    with pytest.raises(ValueError, match="at most the number of examples, 10"):
        batch_sharpness(_example_loss, params, batch, 11)
    with pytest.raises(ValueError, match="probes must be at least 1"):
        root_diagonal_trace(_example_loss, params, batch, probes=0)
    with pytest.raises(ValueError, match="preconditioner must have the structure"):
        preconditioned_sharpness(lambda p: 0.0 * jnp.sum(p["v"]), params, {"w": params["w"]})
    with pytest.raises(ValueError, match=r"one state of optax\.scale_by_adam"):
        adam_preconditioner(optax.sgd(0.1).init(params))
    with pytest.raises(ValueError, match="at least one step"):
        adam_preconditioner(optax.adam(0.1).init(params))
    with pytest.raises(ValueError, match="b1 must be in"):
        adam_stability_limit(0.1, 1.0)
