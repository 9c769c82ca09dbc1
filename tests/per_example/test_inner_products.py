"""Norms and products of gradients at several positions, both ways to take them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igr.per_example import inner_products, output_gradients
from igr.per_example.factors import PositionFactors
from igr.per_example.inner_products import (
    factored_gradients,
    gram,
    pairs_are_less_for_products,
    pairs_are_less_for_squares,
    scaled_to_one,
    squares,
    total,
)


def apply_fn(p, x):
    """A dense layer on 3 positions, a convolution of 2, and the dense layer's matrix once more."""
    rows = jnp.tanh(x @ p["w"])
    seen = jax.lax.conv_general_dilated(
        rows[None], p["kernel"], (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC")
    )
    return jnp.tanh(seen[0].sum(axis=0)) @ p["w"].T


def loss(p, example):
    return jnp.sum(jnp.sin(apply_fn(p, example)))


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(2, 4)), "kernel": rng.normal(size=(2, 4, 4)) / 2}
    params = jax.tree.map(jnp.asarray, params)
    x, y = rng.normal(size=(5, 3, 2)), rng.normal(size=(4, 3, 2))

    def dense(fn, x):
        found = jax.jit(jax.vmap(jax.jacrev(fn), (None, 0)))(params, x)
        leaves = [g.reshape(*g.shape[: g.ndim - params[k].ndim], -1) for k, g in found.items()]
        return np.concatenate(leaves, axis=-1)

    gradients = dense(loss, x), dense(loss, y)
    features = dense(apply_fn, x), dense(apply_fn, y)
    return params, x, y, gradients, [f.reshape(-1, f.shape[-1]) for f in features]


@pytest.mark.parametrize(
    "pairs", [pytest.param(True, marks=pytest.mark.slow), False], ids=["pairs", "formed"]
)
def test_either_way_is_the_definition(case, pairs, monkeypatch):
    params, x, y, (a, b), (features, other_features) = case
    for module in (inner_products, output_gradients):
        monkeypatch.setattr(module, "pairs_are_less_for_squares", lambda *_: pairs)
        monkeypatch.setattr(module, "pairs_are_less_for_products", lambda *_: pairs)

    @jax.jit
    def measured(params, x, y):
        rows, columns = (factored_gradients(loss, params, batch) for batch in (x, y))
        of_x, of_y = (output_gradients.output_gradients(apply_fn, params, b) for b in (x, y))
        lengths = jnp.sqrt(squares(scaled_to_one(rows)))
        directions = gram(scaled_to_one(rows), scaled_to_one(rows))
        return (
            squares(rows),
            gram(rows, columns),
            sum(jnp.sum(total(g) ** 2) for g in rows),
            directions / lengths / lengths[:, None],
            jnp.sum(output_gradients.square_sums(of_x, 2)),
            output_gradients.output_gram(of_x, of_y, 2),
            jnp.asarray([isinstance(g, PositionFactors) for g in rows]),
        )

    norms, products, sum_square, cosines, trace, kernel, factored = measured(params, x, y)
    assert np.all(factored)
    np.testing.assert_allclose(norms, np.sum(a**2, axis=1))
    np.testing.assert_allclose(products, a @ b.T, rtol=1e-10)
    np.testing.assert_allclose(sum_square, np.sum(a.sum(axis=0) ** 2))
    units = a / np.linalg.norm(a, axis=1, keepdims=True)
    np.testing.assert_allclose(cosines, units @ units.T, rtol=1e-10)
    np.testing.assert_allclose(trace, np.sum(features**2))
    np.testing.assert_allclose(kernel, features @ other_features.T, rtol=1e-10)


def test_over_pairs_has_a_derivative(case, monkeypatch):
    """Twice: once for the gradients, once for that of a penalty on them."""
    params, x, *_ = case
    monkeypatch.setattr(output_gradients, "pairs_are_less_for_products", lambda *_: True)

    def kernel_square(w):
        found = output_gradients.output_gradients(apply_fn, {**params, "w": w}, x[:2])
        return jnp.sum(output_gradients.output_gram(found, found, 2) ** 2)

    def by_definition(w):
        jacobian = jax.vmap(lambda x: jax.jacrev(apply_fn)({**params, "w": w}, x))(x[:2])
        features = jnp.concatenate([g.reshape(4, -1) for g in jax.tree.leaves(jacobian)], axis=1)
        return jnp.sum((features @ features.T) ** 2)

    ours, theirs = jax.jit(lambda w: (jax.grad(kernel_square)(w), jax.grad(by_definition)(w)))(
        params["w"]
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def test_which_way_is_less_work():
    """Counts of multiplications, by hand: n = 2 examples, p = 3 positions, a = 8, b = 4."""
    left, right = jnp.zeros((2, 3, 8)), jnp.zeros((2, 3, 4))
    # squares: p^2 (a + b) = 108 for an example, against p a b = 96
    assert not pairs_are_less_for_squares(left, right)
    assert pairs_are_less_for_squares(left[:, :2], right[:, :2])  # 48 against 64
    # products: 2 * 2 * 9 * 12 = 432, against 8 * 4 * (4 * 3 + 4) = 512
    assert pairs_are_less_for_products(left, right, right)
    # of 5 examples 2700, against 32 * (10 * 3 + 25) = 1760
    many = jnp.zeros((5, 3, 8)), jnp.zeros((5, 3, 4))
    assert not pairs_are_less_for_products(*many, many[1])
    # with 5 outputs that share the activations 4 + 8/25 stands in place of 12
    outputs = jnp.zeros((1, 1, 3, 8)), jnp.zeros((1, 5, 3, 4))
    assert pairs_are_less_for_products(*outputs, outputs[1])


def test_the_memory_of_a_kernel_counts_gradients_that_are_formed(monkeypatch):
    """At 3 positions w is 2 x 4, its transpose another, the kernel's matrix 8 x 4 at 2."""
    params = {"w": jnp.zeros((2, 4)), "kernel": jnp.zeros((2, 4, 4))}
    found = jax.eval_shape(
        lambda x: output_gradients.output_gradients(apply_fn, params, x), jnp.zeros((5, 3, 2))
    )
    held = sum(a.size for arrays in found for a in arrays)
    for pairs, formed in ((True, 0), (False, 5 * 2 * (2 * 4 + 8 * 4))):
        monkeypatch.setattr(output_gradients, "pairs_are_less_for_products", lambda *_, p=pairs: p)
        count = output_gradients.numbers_kept_for_products
        assert count(found, found) == held + formed
        assert count(found, list(found)) == 2 * (held + formed)
