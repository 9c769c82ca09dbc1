import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from igr.per_example import grouped_gradients, per_example_gradients
from igr.transforms import median_of_means, median_of_means_sgd


def aggregated(updates, groups, params=None, **options):
    rule = median_of_means(groups, **options)
    return rule.update(updates, rule.init(params), params)[0]


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 6, 8, 24])
def test_against_numpy(groups):
    x = np.random.default_rng(0).normal(size=(24, 3, 5)) ** 3
    means = x.reshape(groups, -1, 3, 5).mean(axis=1)
    np.testing.assert_allclose(
        aggregated(jnp.asarray(x), groups), np.median(means, axis=0), rtol=1e-13
    )


def test_streamed_groups_give_the_same_as_all_gradients(network):
    _, params = network
    rng = np.random.default_rng(0)
    batch = jnp.asarray(rng.normal(size=(12, 3))), jnp.asarray(rng.normal(size=(12, 2)))

    def loss(p, example):
        x, y = example
        hidden = jnp.tanh(x @ p["first"]["w"] + p["first"]["b"])
        return jnp.sum((hidden @ p["last"][0] - y) ** 2)

    streamed = aggregated(grouped_gradients(loss, params, batch, 4), 4, params)
    each = per_example_gradients(loss, params, batch)
    for s, x in zip(jax.tree.leaves(streamed), jax.tree.leaves(each), strict=True):
        expected = np.median(np.asarray(x).reshape(4, 3, *x.shape[1:]).mean(axis=1), axis=0)
        np.testing.assert_allclose(s, expected, rtol=1e-11, atol=1e-14)


def test_one_bad_example_does_not_move_it_far():
    x = np.random.default_rng(0).normal(size=(40, 2))
    x[3] = 1e6
    assert np.abs(aggregated(jnp.asarray(x), 8)).max() < 1.0


@pytest.mark.parametrize("groups", [1, 2, 5, 8])
def test_nan_is_not_hidden(groups):
    x = np.random.default_rng(0).normal(size=(40, 3))
    x[7, 1] = np.nan
    assert np.isnan(aggregated(jnp.asarray(x), groups)).tolist() == [False, True, False]


def test_bfloat16_means_are_not_rounded_before_the_median():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(30, 50)), jnp.bfloat16)
    wide = np.asarray(x, np.float64).reshape(6, 5, 50).mean(axis=1)
    ours = aggregated(x, 6)
    assert ours.dtype == jnp.bfloat16
    np.testing.assert_array_equal(
        ours, jnp.asarray(np.median(wide, axis=0), jnp.float32).astype(jnp.bfloat16)
    )


def test_mask_averages_the_rest():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2)))
    ours = aggregated({"a": x, "b": x}, 3, mask={"a": True, "b": False})
    np.testing.assert_array_equal(ours["b"], x.mean(axis=0))
    np.testing.assert_allclose(
        ours["a"], np.median(np.asarray(x).reshape(3, 2, 2).mean(axis=1), axis=0), rtol=1e-15
    )


def test_memory_is_that_of_the_groups():
    params = {"w": jnp.zeros((400, 400)), "b": jnp.zeros(400)}
    one = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    rule = median_of_means(8)

    def loss(p, x):
        return jnp.sum(jnp.tanh(x @ p["w"] + p["b"]) ** 2)

    def aggregate(p, batch):
        return rule.update(grouped_gradients(loss, p, batch, 8), rule.init(p), p)[0]

    compiled = jax.jit(aggregate).lower(params, jnp.ones((64, 400))).compile()
    held = compiled.memory_analysis().temp_size_in_bytes  # the result is one gradient more
    assert held < 8 * one + 2**23  # and the blocks in which the median is taken


@pytest.mark.parametrize("groups", [0, -1, 2.0, "2", None, True])
def test_groups_that_are_no_number(groups):
    with pytest.raises(
        (TypeError, ValueError), match=r"num_groups must be (at least 1|an integer); got"
    ):
        median_of_means(groups)


def test_groups_that_do_not_fit():
    x = jnp.ones((10, 2))
    with pytest.raises(ValueError, match="between 1 and 10, the number of examples; got 11"):
        aggregated(x, 11)
    with pytest.raises(ValueError, match="4 groups of 2 leave 2 of 10 examples over"):
        aggregated(x, 4)
    with pytest.raises(TypeError, match=r"static_args=\('num_groups',\)"):
        optax.inject_hyperparams(median_of_means_sgd)(0.1, num_groups=2).init(x)
    with pytest.raises(ValueError, match="They look already averaged"):
        aggregated(x, 2, x)
    with pytest.raises(ValueError, match="median_of_means needs the whole tree"):
        aggregated({"w": x, "b": optax.MaskedNode()}, 2)
    with pytest.raises(ValueError, match="learning_rate must be positive and finite"):
        median_of_means_sgd(0.0, 2)
