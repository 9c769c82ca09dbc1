import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from igr.transforms import selective_decay, selective_l2_sgd, selective_value_and_grad


@pytest.fixture(scope="module")
def products(network, dense):
    """|H theta| from the dense Hessian, as a tree."""
    theta, hessian = dense
    return ravel_pytree(network.params)[1](jnp.abs(hessian @ theta))


def taken_off(rule, params, value_fn):
    @jax.jit
    def updated(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return rule.update(zeros, rule.init(params), params, value_fn=value_fn)[0]

    return jax.tree.map(lambda u: jnp.asarray(-np.asarray(u)), updated(params))


def assert_same(actual, desired):
    for a, d in zip(jax.tree.leaves(actual), jax.tree.leaves(desired), strict=True):
        np.testing.assert_allclose(a, d, rtol=1e-13)


def decayed_below(params, products, tops, omega):
    return jax.tree.map(
        lambda p, q, top: 0.3 * np.where(q < omega * top, p, 0.0), params, products, tops
    )


@pytest.mark.parametrize("omega", [0.05, 0.3, 0.9])
def test_every_leaf_is_a_layer(network, products, omega):
    value_fn, params = network
    expected = decayed_below(params, products, jax.tree.map(jnp.max, products), omega)
    zeros = sum(int((np.asarray(e) == 0).sum()) for e in jax.tree.leaves(expected))
    assert 0 < zeros < ravel_pytree(params)[0].size
    assert_same(taken_off(selective_decay(0.3, omega), params, value_fn), expected)


@pytest.mark.parametrize(
    "layers",
    [
        {"first": "a", "last": "b"},
        {"first": {"w": 0, "b": 0}, "last": [1]},
        lambda p: jax.tree_util.tree_map_with_path(lambda path, _: path[0].key, p),
    ],
)
def test_layers_group_leaves(network, products, layers):
    value_fn, params = network
    first = jnp.maximum(products["first"]["w"].max(), products["first"]["b"].max())
    tops = {"first": {"w": first, "b": first}, "last": [products["last"][0].max()]}
    rule = selective_decay(0.3, 0.3, layers)
    expected = decayed_below(params, products, tops, 0.3)
    assert_same(taken_off(rule, params, value_fn), expected)


def test_inequality_is_strict():
    theta = jnp.array([1.0, 1.0, 1.0])

    def loss(w):
        return (4 * w[0] ** 2 + 2 * w[1] ** 2 + w[2] ** 2) / 2  # H theta = (4, 2, 1)

    assert taken_off(selective_decay(1.0, 0.5), theta, loss).tolist() == [0, 0, 1]
    assert taken_off(selective_decay(1.0, 0.0), theta, loss).tolist() == [0, 0, 0]
    assert taken_off(selective_decay(1.0, 1.0), theta, loss).tolist() == [0, 1, 1]
    assert taken_off(selective_decay(1.0, 1.1), theta, loss).tolist() == [1, 1, 1]
    assert taken_off(selective_decay(1.0, 0.5), theta, lambda w: w.sum()).tolist() == [0, 0, 0]


def test_sign_of_the_product_does_not_matter():
    theta = jnp.array([1.0, 1.0])
    rule = selective_decay(1.0, 0.5)
    assert taken_off(rule, theta, lambda w: w[0] ** 2 - 4 * w[1] ** 2).tolist() == [1, 0]


def test_masked_leaves_are_in_no_maximum_and_do_not_move(network):
    value_fn, params = network
    fixed = params["first"]["b"]
    mask = {"first": {"w": True, "b": False}, "last": True}
    ours = taken_off(selective_decay(0.3, 0.3, {"first": 0, "last": 0}, mask), params, value_fn)

    def of_the_chosen(chosen):
        return value_fn({"first": {"w": chosen[0], "b": fixed}, "last": [chosen[1]]})

    alone = taken_off(
        selective_decay(0.3, 0.3, (0, 0)), (params["first"]["w"], params["last"][0]), of_the_chosen
    )
    np.testing.assert_array_equal(ours["first"]["b"], 0.0)
    assert_same((ours["first"]["w"], ours["last"][0]), alone)


def test_optimizer_and_oracle_take_the_same_steps(network):
    value_fn, params = network
    optimizer, sgd = selective_l2_sgd(0.1, 0.02, 0.3), optax.sgd(0.1)
    oracle = selective_value_and_grad(value_fn, 0.2, 0.3)
    ours, theirs = params, params
    state, other = optimizer.init(params), sgd.init(params)
    for _ in range(3):
        updates, state = optimizer.update(jax.grad(value_fn)(ours), state, ours, value_fn=value_fn)
        ours = optax.apply_updates(ours, updates)
        value, grad = oracle(theirs)
        np.testing.assert_allclose(value, value_fn(theirs), rtol=1e-14)
        updates, other = sgd.update(grad, other)
        theirs = optax.apply_updates(theirs, updates)
    np.testing.assert_allclose(ravel_pytree(ours)[0], ravel_pytree(theirs)[0], rtol=1e-12)


def test_bad_input():
    w = {"w": jnp.ones(2)}
    loss = lambda p: jnp.sum(p["w"] ** 2)
    with pytest.raises(ValueError, match="weight_decay must be finite and not negative"):
        selective_decay(-1.0, 0.1)
    with pytest.raises(ValueError, match="threshold must be finite and not negative; got -0"):
        selective_decay(1.0, -0.1)
    with pytest.raises(TypeError, match="threshold must be a number and no schedule; got"):
        selective_decay(1.0, optax.constant_schedule(0.1))
    with pytest.raises(ValueError, match="rate must be finite"):
        selective_value_and_grad(loss, jnp.inf, 0.1)
    with pytest.raises(ValueError, match="learning_rate must be positive and finite"):
        selective_l2_sgd(jnp.nan, 0.1, 0.1)
    with pytest.raises(ValueError, match=r"value_fn=.*selective_value_and_grad"):
        taken_off(selective_decay(1.0, 0.1), w, None)
    with pytest.raises(ValueError, match="layers must be a pytree with the structure of params"):
        taken_off(selective_decay(1.0, 0.1, {"v": 0}), w, loss)
    with pytest.raises(ValueError, match=r"layers must hold labels.*static_args=\('layers',\)"):
        taken_off(selective_decay(1.0, 0.1, {"w": jnp.array(0)}), w, loss)
    with pytest.raises(ValueError, match="selective_decay needs the whole tree"):
        selective_decay(1.0, 0.1).init({"w": optax.MaskedNode()})
