import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igr.per_example import grouped_gradients, per_example_gradients


@pytest.fixture(scope="module")
def regression():
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(3, 2))), "b": [jnp.asarray(rng.normal(size=2))]}
    batch = {"x": jnp.asarray(rng.normal(size=(12, 3))), "y": jnp.asarray(rng.normal(size=(12, 2)))}

    def loss(params, example):
        outputs = jnp.tanh(example["x"] @ params["w"]) + params["b"][0]
        return jnp.sum((outputs - example["y"]) ** 2)

    return loss, params, batch


def one_by_one(loss, params, batch):
    """The gradients by one call of jax.grad each."""
    length = len(jax.tree.leaves(batch)[0])
    gradients = [
        jax.grad(loss)(params, jax.tree.map(lambda x: x[i], batch))  # noqa: B023
        for i in range(length)
    ]
    return jax.tree.map(lambda *g: np.stack(g), *gradients)


def assert_same(actual, desired):
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    for a, d in zip(jax.tree.leaves(actual), jax.tree.leaves(desired), strict=True):
        np.testing.assert_allclose(a, d, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("chunk", [None, 1, 5, 12, 100])
def test_every_gradient(regression, chunk):
    ours = jax.jit(per_example_gradients, static_argnums=(0, 3))(*regression, chunk)
    assert_same(ours, one_by_one(*regression))


@pytest.mark.parametrize("groups", [1, 3, 4, 12])
def test_means_of_groups(regression, groups):
    each = one_by_one(*regression)
    means = jax.tree.map(lambda g: g.reshape(groups, -1, *g.shape[1:]).mean(1), each)
    assert_same(grouped_gradients(*regression, groups), means)


def test_leaves_that_do_not_train_and_dtypes():
    params = {
        "w": jnp.ones(2, jnp.bfloat16),
        "v": jnp.ones(2, jnp.float32),
        "shift": jnp.array([1, 2]),
        "activation": jnp.tanh,
    }

    def loss(p, x):
        return jnp.sum(p["activation"](x * p["w"] * p["v"] + p["shift"]))

    each = per_example_gradients(loss, params, jnp.arange(3.0))
    groups = grouped_gradients(loss, params, jnp.arange(4.0), 2)
    for gradients, length in ((each, 3), (groups, 2)):
        assert gradients["activation"] is None
        assert gradients["w"].dtype == jnp.bfloat16
        assert gradients["v"].dtype == jnp.float32
        np.testing.assert_array_equal(gradients["shift"], np.zeros((length, 2)))
        assert gradients["shift"].dtype == params["shift"].dtype
        assert gradients["w"].shape == (length, 2)


def temporaries_and_output(fn, *args):
    analysis = jax.jit(fn).lower(*args).compile().memory_analysis()
    return analysis.temp_size_in_bytes, analysis.output_size_in_bytes


def test_only_the_means_of_groups_are_ever_held():
    params = {"w": jnp.zeros((300, 300)), "b": jnp.zeros(300)}
    batch = jnp.ones((64, 300))
    one = sum(leaf.nbytes for leaf in jax.tree.leaves(params))

    def loss(p, x):
        return jnp.sum(jnp.tanh(x @ p["w"] + p["b"]) ** 2)

    temporaries, output = temporaries_and_output(
        lambda p, b: grouped_gradients(loss, p, b, 8), params, batch
    )
    assert output == pytest.approx(8 * one, rel=0.01)
    assert temporaries < 1.5 * one  # the gradient being computed, and a few activations
    temporaries, _ = temporaries_and_output(
        lambda p, b: per_example_gradients(loss, p, b, 4), params, batch
    )
    assert temporaries < 10 * one


def test_works_under_vmap(regression):
    loss, params, batch = regression
    double = jax.tree.map(lambda p: 2 * p, params)
    several = jax.tree.map(lambda *p: jnp.stack(p), params, double)
    ours = jax.vmap(lambda p: grouped_gradients(loss, p, batch, 3))(several)
    theirs = [grouped_gradients(loss, p, batch, 3) for p in (params, double)]
    assert_same(ours, jax.tree.map(lambda *g: jnp.stack(g), *theirs))


def loss_of_one(w, x):
    return w * jnp.sum(x)


@pytest.mark.parametrize("fn", [per_example_gradients, lambda *a: grouped_gradients(*a, 1)])
def test_bad_batches_and_params(fn):
    w = jnp.array(1.0)
    with pytest.raises(ValueError, match=r"agree.*3 in batch\['x'\], 4 in batch\['y'\]"):
        fn(loss_of_one, w, {"x": jnp.ones(3), "y": jnp.ones(4)})
    with pytest.raises(ValueError, match=r"leading example axis; batch\['y'\] is 3"):
        fn(loss_of_one, w, {"x": jnp.ones(3), "y": 3})
    with pytest.raises(ValueError, match="batch must hold at least one array"):
        fn(loss_of_one, w, {})
    with pytest.raises(ValueError, match="at least one example; it holds 0"):
        fn(loss_of_one, w, jnp.ones((0, 3)))
    with pytest.raises(
        ValueError, match=r"at least one floating array; got leaves of type \['Array"
    ):
        fn(loss_of_one, jnp.array(1), jnp.ones(3))
    with pytest.raises(ValueError, match=r"example_loss_fn must return one.*shape \(3,\)"):
        fn(lambda w, x: w * x, w, jnp.ones((2, 3)))


@pytest.mark.parametrize("chunk", [0, -1, 2.0, True])
def test_bad_chunk(chunk):
    with pytest.raises((TypeError, ValueError), match=r"chunk must be (at least 1|an integer)"):
        per_example_gradients(loss_of_one, jnp.array(1.0), jnp.ones(3), chunk)


def test_bad_groups():
    args = loss_of_one, jnp.array(1.0), jnp.ones(10)
    for groups in (0, -2, 2.0, True, None):
        with pytest.raises(
            (TypeError, ValueError), match=r"num_groups must be (between|an integer)"
        ):
            grouped_gradients(*args, groups)
    with pytest.raises(ValueError, match="between 1 and 10, the number of examples; got 11"):
        grouped_gradients(*args, 11)
    with pytest.raises(ValueError, match=r"4 groups of 2 leave 2 of 10 examples over\. Drop them"):
        grouped_gradients(*args, 4)
    with pytest.raises(TypeError, match=r"static_args=\('num_groups',\)"):
        jax.jit(lambda k: grouped_gradients(*args, k))(2)
