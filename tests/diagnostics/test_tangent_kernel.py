import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igr.diagnostics import (
    KernelTooLargeError,
    tangent_kernel,
    tangent_kernel_logdet,
    tangent_kernel_trace,
)
from igr.per_example.output_gradients import output_gradients

# The gradient of output o is the input in row o of the matrix.
linear = lambda w, x: w @ x


kernel_of = jax.jit(tangent_kernel, static_argnums=0)
trace_of = jax.jit(tangent_kernel_trace, static_argnums=0, static_argnames=("method", "chunk"))
logdet_of = jax.jit(tangent_kernel_logdet, static_argnums=0)


def dense_features(apply_fn, params, x):
    """The gradients of all outputs of all examples as rows, by the plain Jacobian."""
    floating = {
        k: v for k, v in enumerate(jax.tree.leaves(params)) if jnp.issubdtype(v.dtype, jnp.floating)
    }
    leaves, structure = jax.tree.flatten(params)

    def outputs(floating):
        whole = structure.unflatten([floating.get(k, leaf) for k, leaf in enumerate(leaves)])
        return jax.vmap(lambda x: jnp.ravel(apply_fn(whole, x)))(x)

    jacobian = jax.tree.leaves(jax.jit(jax.jacrev(outputs))(floating))
    rows = jacobian[0].shape[0] * jacobian[0].shape[1]
    return np.concatenate([np.reshape(leaf, (rows, -1)) for leaf in jacobian], axis=1)


def test_against_the_definition(network):
    apply_fn, params, x, y = network.apply_fn, network.params, network.batch[0], network.other[0]
    across, trace, drawn = jax.jit(
        lambda p, x, y, key: (
            tangent_kernel(apply_fn, p, x, y),
            tangent_kernel_trace(apply_fn, p, x),
            tangent_kernel_trace(apply_fn, p, x, method="random_signs", probes=1000, key=key),
        )
    )(params, x, y, jax.random.key(3))
    both = dense_features(apply_fn, params, jnp.concatenate([x, y]))
    a, b = both[:21], both[21:]
    np.testing.assert_allclose(across, a @ b.T, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(trace, np.sum(a**2), rtol=1e-12)
    kernel = a @ a.T
    variance = 2 * np.sum((kernel - np.diag(np.diag(kernel))) ** 2)
    assert abs(drawn - trace) < 3 * np.sqrt(variance / 1000)


def test_of_one_set_and_its_determinant_and_in_chunks():
    rng = np.random.default_rng(0)
    apply_fn = lambda p, x: jnp.tanh(x @ p[0]) @ p[1] + p[2]
    params = [jnp.asarray(rng.normal(size=shape)) for shape in ((3, 5), (5, 2), (2,))]
    x = rng.normal(size=(5, 3))
    features = dense_features(apply_fn, params, x)
    kernel = features @ features.T
    np.testing.assert_allclose(kernel_of(apply_fn, params, x), kernel, atol=1e-13)
    np.testing.assert_allclose(
        logdet_of(apply_fn, params, x), np.linalg.slogdet(kernel)[1], rtol=1e-10
    )
    for chunk in (1, 2, 9):
        trace = trace_of(apply_fn, params, x, chunk=chunk)
        np.testing.assert_allclose(trace, np.trace(kernel))


def test_by_hand():
    """K = (x_i . x_j) times the identity of the outputs, for a linear map."""
    x = jnp.array([[1.0, 2.0], [3.0, -1.0]])
    inputs = np.array([[5.0, 1.0], [1.0, 10.0]])
    w = jnp.ones((3, 2))
    np.testing.assert_allclose(kernel_of(linear, w, x), np.kron(inputs, np.eye(3)))
    np.testing.assert_allclose(trace_of(linear, w, x), 45)
    np.testing.assert_allclose(logdet_of(linear, w, x), 3 * np.log(49))


def test_a_scalar_output():
    x = np.random.default_rng(0).normal(size=(4, 6))
    scalar = lambda w, x: jnp.sin(w @ x)
    features = np.cos(x @ np.ones(6))[:, None] * x
    kernel = kernel_of(scalar, jnp.ones(6), x)
    np.testing.assert_allclose(kernel, features @ features.T)
    vector = kernel_of(lambda w, x: scalar(w, x)[None], jnp.ones(6), x)
    np.testing.assert_allclose(vector, kernel)


def test_activations_are_held_once_for_all_outputs():
    apply_fn = lambda p, x: jax.nn.relu(x @ p[0]) @ p[1] + p[2]
    params, x = [jnp.ones((3, 5)), jnp.ones((5, 4)), jnp.ones(4)], jnp.ones((7, 3))
    first, second, bias = jax.eval_shape(lambda p, x: output_gradients(apply_fn, p, x), params, x)
    assert [a.shape for a in first] == [(7, 1, 3), (7, 4, 5)]
    assert [a.shape for a in second] == [(7, 1, 5), (7, 4, 4)]
    assert [a.shape for a in bias] == [(7, 4, 4)]


def test_random_signs_over_all_signs(monkeypatch):
    """All 2^4 draws on two outputs of two examples: mean and variance are what is documented."""
    apply_fn = lambda w, x: jnp.tanh(w @ x)
    rng = np.random.default_rng(0)
    w, x = jnp.asarray(rng.normal(size=(2, 3))), jnp.asarray(rng.normal(size=(2, 3)))
    features = dense_features(apply_fn, w, x)
    signs = np.array(list(itertools.product((-1.0, 1.0), repeat=4)))
    monkeypatch.setattr(jax.random, "rademacher", lambda *_: jnp.asarray(signs.reshape(-1, 2, 2)))
    found = tangent_kernel_trace(apply_fn, w, x, method="random_signs", probes=16)
    np.testing.assert_allclose(found, np.sum(features**2))
    each = np.sum((signs @ features) ** 2, axis=1)
    kernel = features @ features.T
    variance = 2 * np.sum((kernel - np.diag(np.diag(kernel))) ** 2)
    np.testing.assert_allclose(np.var(each), variance)


@pytest.mark.slow
def test_a_singular_kernel_is_no_number():
    rng = np.random.default_rng(0)
    w, x = jnp.ones((2, 5)), rng.normal(size=(4, 5))
    assert np.isfinite(logdet_of(linear, w, x))
    twice = np.concatenate([x, x[:1]])
    assert logdet_of(linear, w, twice) == -np.inf
    assert logdet_of(linear, w, rng.normal(size=(6, 5))) == -np.inf  # 12 of 10
    assert logdet_of(linear, w, jnp.zeros((1, 5))) == -np.inf
    single = logdet_of(linear, w.astype(jnp.float32), twice.astype(np.float32))
    assert single == -np.inf
    assert np.isnan(logdet_of(linear, w, x * np.nan))
    tiny = logdet_of(linear, w, 1e-8 * x)  # small, and regular all the same
    np.testing.assert_allclose(tiny, logdet_of(linear, w, x) + 8 * np.log(1e-16), rtol=1e-10)


def test_the_trace_can_be_a_penalty():
    w, x = jnp.array([0.5, -1.0]), jnp.array([[1.0, 2.0]])  # of a diagonal kernel: no variance
    for method in ("exact", "random_signs"):
        trace = lambda w, m=method: tangent_kernel_trace(lambda w, x: w**2, w, x, method=m)
        np.testing.assert_allclose(jax.jit(jax.grad(trace))(w), 8 * w)  # of sum (2 w)^2


def test_low_precision_gives_single_precision():
    w, x = jnp.ones((2, 3), jnp.bfloat16), jnp.ones((400, 3), jnp.bfloat16)
    for method in ("exact", "random_signs"):
        assert trace_of(linear, w, x, method=method).dtype == jnp.float32
    assert trace_of(linear, w, x) == 2400
    assert kernel_of(linear, w, x[:2]).dtype == jnp.float32


def test_errors():
    w, x = jnp.ones((2, 3)), jnp.ones((4, 3))
    for measure in (tangent_kernel, tangent_kernel_trace, tangent_kernel_logdet):
        with pytest.raises(ValueError, match=r"vector \(q,\) or a scalar.*shape \(2, 3\), float64"):
            measure(lambda w, x: w * x, w, x)
    with pytest.raises(ValueError, match=r"at least one floating array"):
        tangent_kernel(lambda w, x: x, jnp.arange(2), x)
    with pytest.raises(ValueError, match=r"agree in their leading example axis"):
        tangent_kernel(lambda w, x: w @ x[0], w, (x, jnp.ones(3)))
    with pytest.raises(ValueError, match=r"example of other must .* one of x; got \(5,\)"):
        tangent_kernel(linear, w, x, jnp.ones((4, 5)))
    with pytest.raises(ValueError, match=r"'exact' or 'random_signs'; got 'probes'"):
        tangent_kernel_trace(linear, w, x, method="probes")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"probes must be at least 1; got 0"):
        tangent_kernel_trace(linear, w, x, probes=0)
    for error in (ValueError, MemoryError, KernelTooLargeError):
        many = jax.ShapeDtypeStruct((10**7, 3), float)
        with pytest.raises(error, match=r"20000000 x 20000000 entries needs 6.4e\+06 GB, and the"):
            jax.eval_shape(lambda x: tangent_kernel(linear, w, x), many)
