import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igr.diagnostics import (
    geometric_complexity,
    linear_pieces,
    lipschitz_bound,
    spectral_product,
)
from tests.quick import quick


def network(p, x):
    return jnp.tanh(x @ p[0]) @ p[1]


@pytest.fixture(
    scope="module", params=quick({"reverse": (3, 5, 2), "forward": (1, 4, 2)}, "reverse")
)
def case(request):
    d, hidden, q = request.param
    rng = np.random.default_rng(0)
    params = [jnp.asarray(rng.normal(size=shape)) for shape in ((d, hidden), (hidden, q))]
    x = rng.normal(size=(7, d))
    jacobians = [  # (diag(1 - tanh^2)) in the middle of the product of the two matrices
        np.array(params[0]) @ np.diag(1 - np.tanh(u @ params[0]) ** 2) @ params[1] for u in x
    ]
    return params, x, np.array(jacobians)


@pytest.mark.parametrize("chunk", [None, 1, 3])
def test_against_the_definition(case, chunk):
    params, x, jacobians = case
    found = jax.jit(lambda p, x: geometric_complexity(network, p, x, chunk=chunk))(params, x)
    np.testing.assert_allclose(found, np.mean(np.sum(jacobians**2, axis=(1, 2))), rtol=1e-13)


def test_random_signs_over_all_signs(case, monkeypatch):
    """Every sign on every output of two examples: the mean is exact, the variance as documented."""
    params, x, jacobians = case
    x, jacobians, q = x[:2], jacobians[:2], jacobians.shape[-1]
    signs = jnp.asarray(list(itertools.product((-1.0, 1.0), repeat=2 * q))).reshape(-1, 2, q)
    monkeypatch.setattr(jax.random, "rademacher", lambda *_: signs)
    found = geometric_complexity(network, params, x, method="random_signs", probes=len(signs))
    np.testing.assert_allclose(found, np.mean(np.sum(jacobians**2, axis=(1, 2))), rtol=1e-13)
    each = [np.mean(np.sum(np.einsum("ndq,nq->nd", jacobians, r) ** 2, 1)) for r in signs]
    products = np.einsum("ndo,ndp->nop", jacobians, jacobians)
    off_diagonal = products * (1 - np.eye(q))
    np.testing.assert_allclose(np.var(each), 2 / 2**2 * np.sum(off_diagonal**2))


def test_random_signs_are_unbiased(case):
    params, x, jacobians = case
    q = jacobians.shape[-1]
    found = geometric_complexity(
        network, params, x, method="random_signs", probes=4000, key=jax.random.key(2)
    )
    products = np.einsum("ndo,ndp->nop", jacobians, jacobians) * (1 - np.eye(q))
    error = np.sqrt(2 * np.sum(products**2) / 7**2 / 4000)
    assert abs(found - np.mean(np.sum(jacobians**2, axis=(1, 2)))) < 3 * error


@pytest.mark.slow
def test_relu_network_is_the_mean_over_its_linear_pieces():
    """|x| in two outputs and 2x in a third, by hand: |A|^2 = 1 + 4 on both sides of zero."""
    fold = lambda p, x: jnp.array([jax.nn.relu(x[0]), jax.nn.relu(-x[0]), p * x[0]])
    x = np.array([[-2.0], [1.0], [3.0]])
    np.testing.assert_allclose(geometric_complexity(fold, 2.0, x), 5)
    half = lambda p, x: p * jax.nn.relu(x[0])  # a scalar, flat for one example of three
    np.testing.assert_allclose(geometric_complexity(half, 3.0, x), 2 / 3 * 9)


@pytest.mark.slow
def test_images_pytrees_low_precision_and_gradients():
    image = lambda p, x: jnp.array([p * jnp.sum(x["a"]), x["b"]])
    x = {"a": jnp.ones((4, 2, 3)), "b": jnp.ones(4)}
    np.testing.assert_allclose(geometric_complexity(image, 2.0, x), 6 * 4 + 1)
    for method in ("exact", "random_signs"):
        gradient = jax.grad(lambda p, m=method: geometric_complexity(image, p, x, method=m))(2.0)
        np.testing.assert_allclose(gradient, 6 * 2 * 2)
    small = geometric_complexity(lambda p, x: p * x, 1.0, jnp.ones((2, 1000), jnp.bfloat16))
    assert small.dtype == jnp.float32
    assert small == 1000


def test_it_is_below_the_lipschitz_bound(case):
    params, x, jacobians = case
    slopes = np.array([np.linalg.norm(j, 2) for j in jacobians])
    smaller = min(jacobians.shape[1:])
    bound = jax.jit(lambda p, x: lipschitz_bound(network, p, x, chunk=2))
    found = bound(params, x)
    np.testing.assert_allclose(found.complexity, np.mean(np.sum(jacobians**2, axis=(1, 2))))
    np.testing.assert_allclose(found.mean_square, smaller * np.mean(slopes**2))
    np.testing.assert_allclose(found.slope, slopes.max())
    np.testing.assert_allclose(found.bound, smaller * slopes.max() ** 2)
    constant = spectral_product(params)
    np.testing.assert_allclose(
        constant, np.linalg.norm(params[0], 2) * np.linalg.norm(params[1], 2), rtol=1e-13
    )
    known = jax.jit(lambda p, x: lipschitz_bound(network, p, x, lipschitz=constant))(params, x)
    assert found.complexity <= found.mean_square <= found.bound <= known.bound
    np.testing.assert_allclose(known.bound, smaller * constant**2)


@pytest.mark.slow
def test_the_linear_pieces_of_a_relu_network():
    """From the patterns of active units; the identity, its batches, and the map of each piece."""
    rng = np.random.default_rng(0)
    w, b, v = rng.normal(size=(2, 4)), rng.normal(size=4) / 5, rng.normal(size=(4, 3))
    relu = lambda p, x: jax.nn.relu(x @ p[0] + p[1]) @ p[2] + 1
    x = rng.normal(size=(60, 2))
    active = x @ w + b > 0
    patterns, first, piece, counts = np.unique(
        active, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    found = linear_pieces(relu, (w, b, v), x)
    assert len(found.counts) == len(patterns) > 5
    assert sorted(found.counts.tolist()) == sorted(counts.tolist())
    assert np.all(np.diff(found.counts) <= 0)
    for i in range(60):
        d = np.diag(active[i].astype(float))
        a = (w @ d @ v).T
        np.testing.assert_allclose(found.matrices[found.piece[i]], a, atol=1e-13)
        np.testing.assert_allclose(found.offsets[found.piece[i]], v.T @ d @ b + 1, atol=1e-13)
    squares = [np.sum((w @ np.diag(p.astype(float)) @ v) ** 2) for p in patterns]
    np.testing.assert_allclose(found.complexity, counts @ squares / 60, rtol=1e-13)
    np.testing.assert_allclose(
        found.complexity, geometric_complexity(relu, (w, b, v), x), rtol=1e-13
    )
    # a batch with the same shares of pieces, one example of each as often as its piece has
    stratified = x[first][piece.ravel()]
    np.testing.assert_allclose(
        geometric_complexity(relu, (w, b, v), stratified), found.complexity, rtol=1e-13
    )


@pytest.mark.slow
def test_pieces_in_single_precision_and_of_a_smooth_network():
    x = np.linspace(-1, 1, 40, dtype=np.float32)[:, None]
    fold = lambda w, x: w * jnp.abs(x[0])
    assert sorted(linear_pieces(fold, jnp.float32(0.1), x).counts.tolist()) == [20, 20]
    curved = lambda w, x: w * jnp.tanh(x[0] + 2)
    assert linear_pieces(curved, jnp.float32(0.1), x).counts.tolist() == [1] * 40


def test_errors():
    x = jnp.ones((3, 2))
    with pytest.raises(ValueError, match=r"vector \(q,\) or a scalar.*shape \(2, 2\), float64"):
        geometric_complexity(lambda p, x: jnp.outer(x, x), 1.0, x)
    with pytest.raises(ValueError, match=r"must return one array"):
        geometric_complexity(lambda p, x: (x, x), 1.0, x)
    with pytest.raises(ValueError, match=r"x must be floating to be differentiated by; got int"):
        geometric_complexity(lambda p, x: p * x, 1.0, jnp.ones((3, 2), int))
    with pytest.raises(ValueError, match=r"agree in their leading example axis"):
        geometric_complexity(lambda p, x: x[0], 1.0, (x, jnp.ones(4)))
    with pytest.raises(ValueError, match=r"'exact' or 'random_signs'; got 'full'"):
        geometric_complexity(lambda p, x: x, 1.0, x, method="full")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"probes must be at least 1; got 0"):
        geometric_complexity(lambda p, x: x, 1.0, x, probes=0)
    with pytest.raises(ValueError, match=r"chunk must be at least 1; got 0"):
        lipschitz_bound(lambda p, x: x, 1.0, x, chunk=0)
    with pytest.raises(ValueError, match=r"0.5 is below the slope 2 at an example"):
        lipschitz_bound(lambda p, x: p * x, 2.0, x, lipschitz=0.5)
    with pytest.raises(ValueError, match=r"at least one matrix; it is empty"):
        spectral_product([])
    with pytest.raises(ValueError, match=r"matrices must be matrices; got one of shape \(3,\)"):
        spectral_product([x, jnp.ones(3)])
    with pytest.raises(TypeError, match=r"counts pieces, which jit cannot; call it outside"):
        jax.jit(lambda x: linear_pieces(lambda p, x: x, 1.0, x))(x)
