import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from igr.per_example import per_example_gradients
from igr.transforms import winsorize, winsorized_gradient, winsorized_sgd


@pytest.fixture(scope="module")
def convolutional():
    """A loss with a convolution, a dense layer used once and one used twice."""
    rng = np.random.default_rng(0)

    def random(*shape):
        return jnp.asarray(rng.normal(size=shape))

    params = {"kernel": random(3), "w": random(8, 5), "b": random(5), "tied": random(5, 5)}

    def loss(p, example):
        x = jnp.convolve(example[0], p["kernel"], mode="same")
        hidden = jnp.tanh(x @ p["w"] + p["b"])
        return jnp.sum((p["tied"] @ jnp.tanh(p["tied"] @ hidden) - example[1]) ** 2)

    return loss, params, (random(40, 8), random(40, 5))


@pytest.fixture(scope="module")
def each(convolutional):
    loss, params, batch = convolutional
    gradients = jax.jit(lambda p, b: per_example_gradients(loss, p, b))(params, batch)
    return jax.tree.map(np.asarray, gradients)


def assert_same(actual, desired):
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    for a, d in zip(jax.tree.leaves(actual), jax.tree.leaves(desired), strict=True):
        assert a.dtype == d.dtype
        np.testing.assert_allclose(a, d, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("c", "length"),
    [
        (10, 12),
        (50, 12),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((0, 12), (10, 40))),
    ],
)
def test_against_numpys_percentile(convolutional, each, c, length):
    loss, params, batch = convolutional
    batch = jax.tree.map(lambda x: x[:length], batch)
    ours = jax.jit(lambda p, b: winsorized_gradient(loss, p, b, c))(params, batch)
    for a, g in zip(jax.tree.leaves(ours), jax.tree.leaves(each), strict=True):
        g = g[:length]
        low, high = np.percentile(g, [c, 100 - c], axis=0)
        np.testing.assert_allclose(a, np.clip(g, low, high).mean(axis=0), rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_many_rows_in_blocks():
    rng = np.random.default_rng(0)
    w = jnp.asarray(rng.normal(size=(300, 50)))
    batch = jnp.asarray(rng.normal(size=(100, 300)))  # 52 rows of 50 go into a block

    def loss(w, x):
        return jnp.sum(jnp.sin(x @ w))

    ours = jax.jit(lambda w, b: winsorized_gradient(loss, w, b, 10))(w, batch)
    each = np.einsum("na,nb->nab", batch, np.cos(batch @ w))
    low, high = np.percentile(each, [10, 90], axis=0)
    np.testing.assert_allclose(ours, np.clip(each, low, high).mean(axis=0), rtol=1e-9, atol=1e-12)


def test_mask_dtypes_and_leaves_that_do_not_train(convolutional, each):
    loss, params, batch = convolutional
    batch, each = jax.tree.map(lambda x: jnp.asarray(x[:12]), (batch, each))
    mask = {"kernel": False, "w": False, "b": True, "tied": True}
    ours = jax.jit(lambda p, b: winsorized_gradient(loss, p, b, 20, mask))(params, batch)
    rule = winsorize(20, mask)
    theirs, _ = rule.update(each, rule.init(params), params)
    assert_same(ours, theirs)
    tree = {"w": params["w"].astype(jnp.bfloat16), "n": jnp.array([2]), "f": jnp.tanh}
    function = tree.pop("f")
    gradient = jax.jit(
        lambda p, b: winsorized_gradient(
            lambda p, x: jnp.sum(p["f"](x[0] @ p["w"])) * p["n"][0], p | {"f": function}, b, 20
        )
    )(tree, batch)
    assert gradient["w"].dtype == jnp.bfloat16
    assert gradient["n"].tolist() == [0]
    assert gradient["f"] is None


def test_with_sgd_it_is_winsorized_sgd(convolutional):
    loss, params, batch = convolutional
    batch = jax.tree.map(lambda x: x[:12], batch)
    robust, plain = winsorized_sgd(0.01, 10, 0.9), optax.sgd(0.01, 0.9)
    ours, theirs = params, params
    state, other = plain.init(params), robust.init(params)

    @jax.jit
    def step(ours, state, theirs, other):
        updates, state = plain.update(winsorized_gradient(loss, ours, batch, 10), state)
        ours = optax.apply_updates(ours, updates)
        updates, other = robust.update(per_example_gradients(loss, theirs, batch), other, theirs)
        return ours, state, optax.apply_updates(theirs, updates), other

    for _ in range(2):
        ours, state, theirs, other = step(ours, state, theirs, other)
    assert_same(ours, theirs)


def test_nan_in_one_example_is_not_hidden(convolutional):
    loss, params, (x, y) = convolutional
    x = np.array(x[:12])
    x[3, 0] = np.nan
    gradient = jax.jit(lambda p, b: winsorized_gradient(loss, p, b, 10))(params, (x, y[:12]))
    assert np.isnan(gradient["w"]).all()


@pytest.mark.parametrize("length", [pytest.param(32, marks=pytest.mark.slow), 128])
def test_memory_stays_far_below_the_gradients_of_the_examples(length):
    shapes = jax.ShapeDtypeStruct((500, 400), jnp.float32), jnp.zeros((length, 500), jnp.float32)

    def loss(w, x):
        return jnp.sum(jnp.sin(x @ w))

    fused = jax.jit(lambda w, b: winsorized_gradient(loss, w, b, 10))
    held = fused.lower(*shapes).compile().memory_analysis().temp_size_in_bytes
    assert held < min(1e7, 0.2 * length * 500 * 400 * 4)


def test_bad_input(convolutional):
    loss, params, batch = convolutional
    with pytest.raises(ValueError, match=r"percentile must be between 0 and 50; got 51"):
        winsorized_gradient(loss, params, batch, 51)
    with pytest.raises(ValueError, match="mask must be a pytree"):
        winsorized_gradient(loss, params, batch, 10, {"v": True})
    with pytest.raises(ValueError, match="batch must hold at least one array"):
        winsorized_gradient(loss, params, (), 10)
