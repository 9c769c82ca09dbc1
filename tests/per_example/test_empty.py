"""Leaves of width 0 and sequences of length 0 have no part in any number, and do no harm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igr.diagnostics import coherence, stiffness, tangent_kernel_trace
from igr.per_example import per_example_gradients

X = jax.random.normal(jax.random.key(0), (4, 3))
EMPTY = {"x": X, "s": jnp.zeros((4, 0, 2))}
PARAMS = {"w": jnp.arange(1.0, 4.0), "v": jnp.ones((2, 2)), "z": jnp.zeros((0, 3))}


def apply(params, example):
    both = params["w"] * example["x"] + jnp.sum(params["z"] @ example["x"])
    return both[:2] + jnp.sum(example["s"] @ params["v"], axis=0)


def loss(params, example):
    return jnp.sum(apply(params, example) ** 2)


def dense():
    """Of the loss sum (w x)^2 over the first two."""
    gradients = 2 * np.asarray(PARAMS["w"]) * np.asarray(X) ** 2
    return gradients * [1, 1, 0]


@pytest.mark.parametrize("method", ["exact", "random_signs"])
def test_coherence(method):
    found = jax.jit(lambda p, e: coherence(loss, p, e, method=method))(PARAMS, EMPTY)
    g = dense()
    if method == "exact":
        alpha = np.sum(g.mean(0) ** 2) / np.mean(np.sum(g**2, 1))
        np.testing.assert_allclose(found.alpha, alpha, rtol=1e-10)
    assert np.isfinite(found.alpha)


def test_stiffness():
    g = dense() / np.linalg.norm(dense(), axis=1, keepdims=True)
    found = jax.jit(lambda p, e: stiffness(loss, p, e))(PARAMS, EMPTY)
    np.testing.assert_allclose(found, g @ g.T, rtol=1e-10)


def test_kernel_trace():
    found, only_w = jax.jit(
        lambda p, e: (
            tangent_kernel_trace(apply, p, e),
            tangent_kernel_trace(lambda w, x: (w * x)[:2], p["w"], e["x"]),
        )
    )(PARAMS, EMPTY)
    np.testing.assert_allclose(found, only_w, rtol=1e-10)


def test_gradients():
    found = jax.jit(lambda p, e: per_example_gradients(loss, p, e))(PARAMS, EMPTY)
    np.testing.assert_allclose(found["w"], dense(), rtol=1e-10)
    assert found["z"].shape == (4, 0, 3)
    np.testing.assert_array_equal(found["v"], np.zeros((4, 2, 2)))
