"""Empirical tangent kernels of several networks against contractions of their Jacobians."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igr import diagnostics, penalties

pytestmark = pytest.mark.slow
RNG = np.random.default_rng(0)
KEY = jax.random.key(0)


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape))


def linen(layers, x):
    model = nn.Sequential(layers)
    params = model.init(KEY, x[0])["params"]
    return lambda p, x: jnp.ravel(model.apply({"params": p}, x)), params, x


def dense(n, **more):
    return nn.Dense(n, param_dtype=float, **more)


def conv(n, **more):
    return nn.Conv(n, (2, 2), param_dtype=float, **more)


def pooled(x):
    return nn.avg_pool(x, (2, 2)).mean((0, 1))


IMAGES = normal(5, 5, 4, 2)
# Depths, widths, activations, pooling, strides, groups, biases, normalization, attention, scalars.
NETWORKS = {
    "linear": lambda: linen([dense(3)], normal(5, 4)),
    "one output": lambda: linen([dense(6), jnp.tanh, dense(1)], normal(5, 4)),
    "scalar": lambda: (lambda p, x: jnp.sum(jnp.sin(p * x)), normal(4), normal(5, 4)),
    "wide": lambda: linen([dense(20), nn.gelu, dense(2)], normal(5, 3)),
    "deep": lambda: linen([dense(4), jnp.tanh] * 4 + [dense(3)], normal(5, 4)),
    "without biases": lambda: linen(
        [dense(4, use_bias=False), nn.relu, dense(3, use_bias=False)], normal(5, 4)
    ),
    "convolution": lambda: linen([conv(3), nn.relu, pooled, dense(2)], IMAGES),
    "convolution without pooling": lambda: linen([conv(2), jnp.ravel, dense(2)], IMAGES),
    "strided": lambda: linen([conv(3, strides=2), jnp.tanh, conv(2, strides=2)], IMAGES),
    "grouped": lambda: linen([conv(4, feature_group_count=2), jnp.tanh, pooled], IMAGES),
    "many positions": lambda: linen([conv(2), jnp.tanh, pooled], normal(3, 12, 12, 2)),
    "normalized": lambda: linen(
        [dense(4), nn.LayerNorm(param_dtype=float), dense(2)], IMAGES[:, 0, 0]
    ),
    "attention": lambda: linen(
        [nn.MultiHeadDotProductAttention(2, param_dtype=float, qkv_features=4), jnp.tanh,
         lambda x: x.mean(0)],
        normal(5, 4, 4),
    ),
    "embedding": lambda: linen(
        [nn.Embed(5, 3, param_dtype=float), jnp.ravel, dense(2)],
        jnp.asarray(RNG.integers(5, size=(5, 3))),
    ),
    "recurrent": lambda: linen(
        [nn.RNN(nn.GRUCell(3, param_dtype=float)), lambda x: x[-1]], normal(5, 4, 2)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_kernel(name):
    apply, params, x = NETWORKS[name]()

    def rows(x):
        """A row of the Jacobian for every output of every example."""
        outputs = jax.jit(jax.vmap(jax.jacrev(lambda p, x: jnp.ravel(apply(p, x))), (None, 0)))
        found = jax.tree.leaves(outputs(params, x))
        n, q = found[0].shape[:2]
        return np.concatenate([np.reshape(a, (n * q, -1)) for a in found], axis=1), n, q

    (jacobian, n, q), (some, _, _) = rows(x), rows(x[:2])
    kernel = jacobian @ jacobian.T
    size = np.max(abs(kernel))
    near = {"rtol": 1e-9, "atol": 1e-10 * size}
    found = diagnostics.tangent_kernel(apply, params, x)
    np.testing.assert_allclose(found, kernel, **near)
    assert np.linalg.eigvalsh(found)[0] >= -1e-10 * size
    np.testing.assert_allclose(
        diagnostics.tangent_kernel(apply, params, x[:2], x), some @ jacobian.T, **near
    )
    trace = np.trace(kernel)
    for chunk in (None, 2):
        traced = diagnostics.tangent_kernel_trace(apply, params, x, chunk=chunk)
        np.testing.assert_allclose(traced, trace, rtol=1e-9)
    np.testing.assert_allclose(
        penalties.gradient_similarity_trace(apply, params, x), trace, rtol=1e-9
    )
    np.testing.assert_allclose(
        diagnostics.example_kernel_traces(apply, params, x, chunk=2),
        np.sum(jacobian.reshape(n, -1) ** 2, 1),
        rtol=1e-9,
    )
    np.testing.assert_allclose(
        diagnostics.rademacher_bound(apply, params, x, 2.0), 2 * np.sqrt(trace) / n, rtol=1e-9
    )
    spectrum = diagnostics.tangent_kernel_spectrum(apply, params, x)
    values = np.linalg.eigvalsh(kernel)[::-1]
    np.testing.assert_allclose(spectrum.eigenvalues, values, **near)
    ridge = size / 10
    np.testing.assert_allclose(
        penalties.gradient_similarity_logdet(apply, params, x, ridge=ridge),
        np.linalg.slogdet(kernel + ridge * np.eye(n * q))[1],
        rtol=1e-9,
    )
    targets = normal(n, q)
    y = np.ravel(targets)
    np.testing.assert_allclose(
        diagnostics.tangent_kernel_alignment(apply, params, x, targets),
        y @ kernel @ y / np.linalg.norm(kernel) / (y @ y),
        rtol=1e-9,
    )
    pairs = diagnostics.feature_covariance_eigenpairs(apply, params, x, 2)
    np.testing.assert_allclose(pairs.values, values[:2] / n, rtol=1e-8)
    vectors = np.concatenate(
        [np.reshape(a, (2, -1)) for a in jax.tree.leaves(pairs.vectors)], axis=1
    )
    image = vectors @ jacobian.T @ jacobian / n
    np.testing.assert_allclose(image, np.asarray(pairs.values)[:, None] * vectors, atol=1e-8 * size)


def test_the_kernel_predicts_a_small_step():
    """Outputs move by -h K df to first order: what the empirical kernel is for."""
    apply, params, x = NETWORKS["deep"]()
    y = normal(5, 3)
    outputs = lambda p: jax.vmap(apply, (None, 0))(p, x)
    loss = lambda f: jnp.sum((f - y) ** 2) / 2
    slope = jax.grad(lambda p: loss(outputs(p)))(params)
    kernel = diagnostics.tangent_kernel(apply, params, x)
    expected = -np.asarray(kernel @ jnp.ravel(jax.grad(loss)(outputs(params))))
    predicted = diagnostics.function_space_update(apply, params, x, loss, 1.0)
    np.testing.assert_allclose(np.ravel(predicted.update), expected, atol=1e-8)
    errors = []
    for h in (1e-3, 5e-4):
        moved = outputs(jax.tree.map(lambda p, g, h=h: p - h * g, params, slope)) - outputs(params)
        errors.append(np.max(abs(np.ravel(moved) / h - expected)))
    assert errors[1] < 0.6 * errors[0] < 1e-1 * np.max(abs(expected))
