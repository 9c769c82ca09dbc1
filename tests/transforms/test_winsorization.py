import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from igr.per_example import per_example_gradients
from igr.transforms import winsorize, winsorized_sgd


def aggregated(updates, percentile, params=None, **options):
    rule = winsorize(percentile, **options)
    return rule.update(updates, rule.init(params), params)[0]


def by_numpy(x, c):
    x = np.asarray(x, np.float64)
    low, high = np.percentile(x, [c, 100 - c], axis=0)
    return np.clip(x, low, high).mean(axis=0)


@pytest.mark.parametrize(
    ("length", "percentiles"),
    [
        (1, [10]),
        (2, [10, 50]),
        (7, [0, 0.1, 10, 100 / 3, 50]),
        (10, [10, 100 / 3]),
        (128, [10]),
    ],
)
def test_against_numpys_percentile(length, percentiles):
    rng = np.random.default_rng(length)
    tree = {"w": rng.normal(size=(length, 3, 4)) ** 3, "b": [rng.standard_cauchy((length, 5))]}
    for c in percentiles:
        ours = aggregated(jax.tree.map(jnp.asarray, tree), c)
        for a, x in zip(jax.tree.leaves(ours), jax.tree.leaves(tree), strict=True):
            expected = by_numpy(x, c)
            scale = np.abs(x).max(axis=0).max()
            np.testing.assert_allclose(a, expected, rtol=1e-13, atol=1e-15 * scale)


def test_extremes_are_the_mean_and_the_median():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(9, 4)))
    np.testing.assert_array_equal(aggregated(x, 0), jnp.mean(x, axis=0))
    np.testing.assert_allclose(aggregated(x, 50), np.median(x, axis=0), rtol=1e-15)
    np.testing.assert_allclose(aggregated(x[:8], 50), np.median(x[:8], axis=0), rtol=1e-15)


def test_by_hand():
    x = jnp.array([-100.0, 0.0, 1.0, 2.0, 300.0])  # 25th and 75th percentile: 0 and 2
    assert aggregated(x, 25) == (0 + 0 + 1 + 2 + 2) / 5
    assert aggregated(x, 12.5) == (-50 - 0 + 1 + 2 + 151) / 5  # -50 and 151, halfway


def test_repeated_values_and_permutations():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, size=(20, 6)).astype(float)
    np.testing.assert_allclose(aggregated(jnp.asarray(x), 20), by_numpy(x, 20), rtol=1e-14)
    shuffled = jnp.asarray(rng.permutation(x, axis=0))
    np.testing.assert_array_equal(aggregated(shuffled, 20), aggregated(jnp.asarray(x), 20))


def test_many_coordinates_in_float32_to_rounding():
    x = np.random.default_rng(0).normal(size=(128, 50, 201)).astype(np.float32)
    ours = jax.jit(lambda x: aggregated(x, 10))(x)
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, by_numpy(x, 10), atol=3e-7)


@pytest.mark.parametrize("c", [0, 10, 50])
@pytest.mark.parametrize("position", [0, 5, 10])
def test_nan_is_not_hidden(c, position):
    x = np.random.default_rng(0).normal(size=(11, 3))
    x[position, 1] = np.nan
    assert np.isnan(aggregated(jnp.asarray(x), c)).tolist() == [False, True, False]


def test_infinite_outliers_are_pulled_in():
    x = jnp.array([[1.0], [2.0], [3.0], [jnp.inf], [-jnp.inf]])
    assert aggregated(x, 25).tolist() == [(1 + 1 + 2 + 3 + 3) / 5]


def test_mask_averages_the_rest_with_and_without_params():
    rng = np.random.default_rng(0)
    params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
    updates = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=(7, *p.shape))), params)
    for mask in (lambda p: jax.tree.map(lambda x: x.ndim > 1, p), {"w": True, "b": False}):
        for given in (params, None):
            ours = aggregated(updates, 20, given, mask=mask)
            np.testing.assert_allclose(ours["w"], by_numpy(updates["w"], 20), rtol=1e-13)
            np.testing.assert_array_equal(ours["b"], updates["b"].mean(axis=0))


def test_leaves_that_do_not_train_keep_their_place():
    params = {"w": jnp.ones(2, jnp.bfloat16), "n": jnp.array([1, 2]), "f": jnp.tanh}

    def loss(p, x):
        return jnp.sum(p["f"](p["w"] * x) * p["n"])

    function = params["f"]
    arrays = {"w": params["w"], "n": params["n"]}
    gradients = jax.jit(lambda p, x: per_example_gradients(loss, p | {"f": function}, x))(
        arrays, np.arange(1.0, 6.0)
    )
    ours = aggregated(gradients, 20, params)
    assert ours["w"].dtype == jnp.bfloat16
    assert ours["n"].tolist() == [0, 0]
    assert ours["f"] is None
    float0 = jax.vmap(jax.grad(lambda p, x: jnp.sum(p["w"]) * x, allow_int=True), (None, 0))(
        {"w": params["w"], "n": params["n"]}, jnp.arange(5.0)
    )
    assert aggregated(float0, 20)["n"].dtype == jax.dtypes.float0


def test_optimizer_is_winsorize_then_sgd():
    rng = np.random.default_rng(0)
    params = jnp.zeros(3)
    optimizer, reference = winsorized_sgd(0.1, 20, 0.9, nesterov=True), optax.sgd(0.1, 0.9, True)
    state, other = optimizer.init(params), reference.init(params)
    for _ in range(3):
        x = rng.normal(size=(9, 3))
        ours, state = optimizer.update(jnp.asarray(x), state, params)
        theirs, other = reference.update(jnp.asarray(by_numpy(x, 20)), other, params)
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


@pytest.mark.parametrize("percentile", [-1, 50.1, np.nan, "10", None, True])
def test_percentile_out_of_range(percentile):
    with pytest.raises(
        (TypeError, ValueError), match=r"percentile must be (between 0 and 50|a number); got"
    ):
        winsorize(percentile)


def test_percentile_that_is_not_static():
    injected = optax.inject_hyperparams(winsorized_sgd)(learning_rate=0.1, percentile=10.0)
    with pytest.raises(TypeError, match=r"static_args=\('percentile',\)"):
        injected.init(jnp.zeros(2))


def test_updates_without_an_example_axis():
    params = {"w": jnp.ones((4, 2)), "b": jnp.ones(())}
    averaged = {"w": jnp.ones((4, 2)), "b": jnp.ones(())}
    with pytest.raises(ValueError, match=r"leading example axis.*were these already averaged\?"):
        aggregated(averaged, 10)
    with pytest.raises(ValueError, match=r"have lengths \[3, 4\]"):
        aggregated({"w": jnp.ones((4, 2)), "b": jnp.ones(3)}, 10)
    with pytest.raises(ValueError, match=r"got \(4, 2\) for a .*\(4, 2\)\. They look already"):
        aggregated({"w": jnp.ones((4, 2))}, 10, {"w": params["w"]})
    with pytest.raises(ValueError, match=r"got \(5, 2, 4\) for a parameter of shape \(4, 2\)"):
        aggregated({"w": jnp.ones((5, 2, 4))}, 10, {"w": params["w"]})
    with pytest.raises(ValueError, match="at least one array; the tree is empty"):
        aggregated({}, 10)
    with pytest.raises(ValueError, match=r"have lengths \[0\]"):
        aggregated(jnp.ones((0, 2)), 10)
    with pytest.raises(ValueError, match="updates and params of one structure"):
        aggregated({"w": jnp.ones((5, 4, 2))}, 10, {"v": params["w"]})


def test_masked_nodes_are_refused():
    masked = {"w": jnp.ones((3, 2)), "b": optax.MaskedNode()}
    rule = winsorize(10)
    with pytest.raises(ValueError, match="winsorize needs the whole tree"):
        rule.init(masked)
    with pytest.raises(ValueError, match="winsorize needs the whole tree"):
        rule.update(masked, optax.EmptyState())
    with pytest.raises(ValueError, match="mask must be a pytree"):
        aggregated({"w": jnp.ones((3, 2))}, 10, mask={"v": True})
    with pytest.raises(ValueError, match="learning_rate must be positive and finite"):
        winsorized_sgd(-0.1, 10)


def test_the_temporaries_are_a_small_part_of_the_gradients():
    gradients = jax.ShapeDtypeStruct((128, 200_000), jnp.float32)
    compiled = jax.jit(lambda x: aggregated(x, 10)).lower(gradients).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 0.1 * 128 * 200_000 * 4


def test_accumulation_behind_the_aggregator():
    rng = np.random.default_rng(0)
    params = jnp.zeros(3)
    optimizer = optax.chain(
        winsorize(20),
        optax.MultiSteps(
            optax.sgd(0.1), 2, accumulator_dtype=jnp.float64
        ).gradient_transformation(),
    )
    state = optimizer.init(params)
    x, y = rng.normal(size=(2, 9, 3))
    first, state = optimizer.update(jnp.asarray(x), state, params)
    second, state = optimizer.update(jnp.asarray(y), state, params)
    np.testing.assert_array_equal(first, 0.0)
    np.testing.assert_allclose(second, -0.1 * (by_numpy(x, 20) + by_numpy(y, 20)) / 2, rtol=1e-12)
