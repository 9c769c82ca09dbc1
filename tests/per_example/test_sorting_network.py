import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igr.per_example.sorting_network import reduce_sorted, sort_examples


@pytest.mark.parametrize("length", [1, 2, 5, 13, 33, 100])
def test_sorts_as_numpy_does(length):
    x = np.random.default_rng(length).normal(size=(length, 3, 7))
    np.testing.assert_array_equal(jax.jit(sort_examples)(x), np.sort(x, axis=0))


def test_zero_one_principle():
    """A network that sorts every sequence of zeros and ones sorts everything (Knuth, 5.3.4)."""
    columns = np.array(np.meshgrid(*[[0.0, 1.0]] * 11)).reshape(11, -1)
    ordered = jax.jit(sort_examples)(columns)
    np.testing.assert_array_equal(ordered, np.sort(columns, axis=0))


def test_infinities_and_repeated_values():
    x = np.array([[np.inf, 1.0], [-np.inf, 1.0], [np.inf, 1.0], [0.0, 0.0], [2.0, 1.0]])
    np.testing.assert_array_equal(sort_examples(x), np.sort(x, axis=0))


@pytest.mark.parametrize("length", [5, 60])
def test_one_nan_turns_its_whole_column_into_nan(length):
    x = np.random.default_rng(0).normal(size=(length, length))
    np.fill_diagonal(x, np.nan)
    x = np.concatenate([x, np.zeros((length, 1))], axis=1)
    ordered = jax.jit(sort_examples)(x)
    assert np.isnan(ordered[:, :-1]).all()
    np.testing.assert_array_equal(ordered[:, -1], 0.0)


@pytest.mark.parametrize("columns", [0, 2048, pytest.param(2049, marks=pytest.mark.slow), 5000])
def test_blocks_cover_every_coordinate(columns):
    x = np.random.default_rng(0).normal(size=(128, columns))  # a block holds 2048 columns
    middle = jax.jit(lambda x: reduce_sorted(lambda s: s[64], x))(x)
    np.testing.assert_array_equal(middle, np.sort(x, axis=0)[64])


def test_shape_dtype_and_wide_arithmetic():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(20, 4, 6)), jnp.bfloat16)
    total = reduce_sorted(lambda s: jnp.sum(s, axis=0), x)
    assert total.shape == (4, 6)
    assert total.dtype == jnp.bfloat16
    exact = jnp.asarray(np.asarray(x, np.float64).sum(axis=0))
    np.testing.assert_array_equal(total, exact.astype(jnp.float32).astype(jnp.bfloat16))


def test_vmap():
    x = np.random.default_rng(0).normal(size=(2, 40, 10_000))  # more than one block
    smallest = jax.jit(jax.vmap(lambda x: reduce_sorted(lambda s: s[0], x)))(x)
    np.testing.assert_array_equal(smallest, x.min(axis=1))


def test_gradient():
    x = np.random.default_rng(0).normal(size=(7, 20))
    gradient = jax.jit(jax.grad(lambda x: reduce_sorted(lambda s: s[3], x).sum()))(x)
    np.testing.assert_array_equal(gradient, x == np.median(x, axis=0))
