"""Hessian, Gauss-Newton and Fisher products and solvers on dense matrices of several networks."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from igr import curvature

pytestmark = pytest.mark.slow
RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
N = 6


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape))


def linen(layers, x):
    model = nn.Sequential(layers)
    params = model.init(KEY, x[0])["params"]
    return lambda p, x: jnp.ravel(model.apply({"params": p}, x)), params, x


def convolution():
    conv = lambda n, **more: nn.Conv(n, (2, 2), param_dtype=float, **more)
    return linen([conv(2), jnp.tanh, conv(2, strides=2, feature_group_count=2)], normal(N, 4, 3, 1))


def embedding():
    layers = [nn.Embed(5, 3, param_dtype=float), lambda x: jnp.tanh(x).reshape(-1)]
    return linen(
        [*layers, nn.Dense(4, param_dtype=float)], jnp.asarray(RNG.integers(5, size=(N, 3)))
    )


def tied():
    def apply(p, x):
        return jnp.tanh(p["embedding"][x].sum(0) @ p["w"]) @ p["embedding"].T

    return apply, {"embedding": normal(4, 3), "w": normal(3, 3)}, jnp.asarray(
        RNG.integers(4, size=(N, 3))
    )  # fmt: skip


def normed():
    dense = lambda n: nn.Dense(n, param_dtype=float)
    return linen([dense(3), nn.LayerNorm(param_dtype=float), jnp.tanh, dense(4)], normal(N, 3))


def attention():
    layer = nn.MultiHeadDotProductAttention(1, qkv_features=2, out_features=2, param_dtype=float)
    return linen([layer], normal(N, 2, 2))


def recurrent():
    cell = eqx.nn.GRUCell(2, 2, key=KEY)
    params, static = eqx.partition(cell, eqx.is_inexact_array)

    def apply(p, x):
        cell = eqx.combine(p, static)
        return jax.lax.scan(lambda s, u: (cell(u, s), None), jnp.zeros(2), x)[0]

    return apply, params, normal(N, 3, 2)


def rectified():
    """Kinks, and units that are dead for every example."""
    params = {"w": normal(3, 5).at[:, 0].set(0), "b": normal(5).at[0].set(-1), "v": normal(5, 4)}
    return lambda p, x: jax.nn.relu(x @ p["w"] + p["b"]) @ p["v"], params, normal(N, 3)


def scanned_and_remat():
    def apply(p, x):
        step = jax.checkpoint(lambda x, w: (jnp.sin(x @ w), None))
        return jax.lax.scan(step, x, p)[0]

    return apply, normal(3, 4, 4) / 2, normal(N, 4)


NETWORKS = {
    f.__name__: f
    for f in (
        convolution, embedding, tied, normed, attention, recurrent, rectified, scanned_and_remat
    )
}  # fmt: skip
LOSSES = {
    "half square": (lambda f, y: jnp.sum((f - y) ** 2) / 2, lambda q: normal(N, q)),
    "cross-entropy": (
        optax.softmax_cross_entropy_with_integer_labels,
        lambda q: jnp.asarray(RNG.integers(q, size=N)),
    ),
    "two classes an output": (
        lambda f, y: jnp.sum(jnp.logaddexp(0, -y * f)),
        lambda q: jnp.asarray(RNG.choice([-1.0, 1.0], size=(N, q))),
    ),
}


@pytest.fixture(scope="module", params=[(n, k) for n in NETWORKS for k in LOSSES], ids="-".join)
def case(request):
    """The network and its loss, and the Hessian, Gauss-Newton and Fisher matrices in numpy."""
    apply, params, x = NETWORKS[request.param[0]]()
    loss, targets = LOSSES[request.param[1]]
    y = targets(jax.eval_shape(apply, params, x[0]).size)
    flat, unravel = ravel_pytree(params)

    def matrices(flat, x, y):
        of_params = lambda p: apply(unravel(p), x)
        whole = lambda p: loss(of_params(p), y)
        jacobian, bend = jax.jacrev(of_params)(flat), jax.hessian(loss)(of_params(flat), y)
        return (
            jax.jacfwd(jax.grad(whole))(flat),
            jacobian.T @ bend @ jacobian,
            jax.grad(whole)(flat),
        )

    hessians, gauss_newtons, gradients = jax.jit(jax.vmap(matrices, (None, 0, 0)))(flat, x, y)
    return {
        "apply": apply,
        "output_loss": loss,
        "loss": lambda p, e: loss(apply(p, e[0]), e[1]),
        "params": params,
        "batch": (x, y),
        "flat": flat,
        "unravel": unravel,
        "hessian": np.mean(hessians, 0),
        "gauss_newton": np.mean(gauss_newtons, 0),
        "fisher": np.asarray(gradients.T @ gradients) / N,
    }


def products(case):
    loss, params, batch = case["loss"], case["params"], case["batch"]
    of_all = lambda p: jnp.mean(jax.vmap(loss, (None, 0))(p, batch))
    return {
        "hessian": [
            curvature.hessian_product(of_all, params),
            curvature.hessian_product(loss, params, batch),
            curvature.hessian_product(loss, params, batch, chunk=4),
        ],
        "gauss_newton": [
            curvature.gauss_newton_product(case["apply"], case["output_loss"], params, batch),
            curvature.gauss_newton_product(
                case["apply"], case["output_loss"], params, batch, chunk=4
            ),
        ],
        "fisher": [
            curvature.fisher_product(loss, params, batch),
            curvature.fisher_product(loss, params, batch, chunk=4),
        ],
    }


def test_every_product_is_its_matrix(case):
    vectors = normal(3, case["flat"].size)
    for name, ways in products(case).items():
        expected = vectors @ case[name]
        for product in ways:
            found = jax.jit(jax.vmap(lambda v, p=product: ravel_pytree(p(case["unravel"](v)))[0]))(
                vectors
            )
            np.testing.assert_allclose(found, expected, atol=1e-10 * np.max(abs(expected)))


def test_solvers_on_the_networks(case):
    """The extreme eigenvalues, and a trace that is exact where it is given all of the space."""
    values = np.linalg.eigvalsh(case["hessian"])
    product = products(case)["hessian"][0]
    found = curvature.top_eigenpairs(product, case["params"], 2, which="largest", tol=1e-8)
    assert found.converged
    np.testing.assert_allclose(found.values, values[::-1][:2], rtol=1e-6, atol=1e-8)
    lowest = curvature.sharpness(
        case["loss"], case["params"], case["batch"], which="smallest", tol=1e-6
    )
    np.testing.assert_allclose(lowest.value, values[0], rtol=1e-5, atol=1e-7)
    estimate = curvature.trace(product, case["params"], num_probes=200)
    assert abs(estimate.value - np.trace(case["hessian"])) <= 5 * estimate.error + 1e-12


def test_an_eigenvector_of_the_gauss_newton_matrix_is_one(case):
    product = products(case)["gauss_newton"][0]
    found = curvature.top_eigenpairs(product, case["params"], 1, tol=1e-8)
    vector = np.concatenate([np.ravel(a) for a in jax.tree.leaves(found.vectors)])
    image = case["gauss_newton"] @ vector
    apart = np.linalg.norm(image - found.values[0] * vector)
    assert apart <= 1.01 * found.residuals[0] + 1e-12 * found.values[0]
    exact = np.linalg.eigvalsh(case["gauss_newton"])[-1]
    np.testing.assert_allclose(found.values[0], exact, rtol=2e-8)
