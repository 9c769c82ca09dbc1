import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from igr.curvature import sgd_stability
from igr.diagnostics import sgd_learning_rate_limit, sgd_region

CURVATURES = np.array([0.5, 1.0, 2.5, 4.0])  # of the losses h_i w^2 / 2 of four examples


def mean_square_factor(eta, size):
    """By what SGD multiplies E w^2, over all batches without replacement."""
    batches = itertools.combinations(CURVATURES, size)
    return np.mean([(1 - eta * np.mean(batch)) ** 2 for batch in batches])


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_growth_is_that_of_sgd_on_one_parameter(size):
    a, s = np.mean(CURVATURES), np.std(CURVATURES)
    for eta in (0.1, 0.5, 0.9, 1.2):
        region = sgd_region(eta, size, 4)
        factor = mean_square_factor(eta, size)
        np.testing.assert_allclose(region.growth(a, s), factor, rtol=1e-13)
        if factor <= 1:
            assert region.allows(a, s)
        if size < 4:
            kept = a * eta < 2 and s <= region.boundary(a)
            assert bool(kept) == (factor <= 1)
    limit = sgd_learning_rate_limit(a, s, size, 4)
    np.testing.assert_allclose(mean_square_factor(limit, size), 1, rtol=1e-13)


def test_the_measured_minimum_lies_where_the_region_says():
    loss = lambda w, h: h * w**2 / 2
    found = sgd_stability(loss, jnp.zeros(()), jnp.asarray(CURVATURES), 0.9, 2)
    region = sgd_region(0.9, 2, 4)
    np.testing.assert_allclose(region.sharpness_limit, found.sharpness_limit)
    np.testing.assert_allclose(region.non_uniformity_limit, found.non_uniformity_limit)
    np.testing.assert_allclose(
        region.growth(found.sharpness, found.non_uniformity), found.growth, rtol=1e-6
    )
    assert bool(region.allows(found.sharpness, found.non_uniformity)) == bool(found.necessary)


def test_no_stable_minimum_lies_outside_the_region():
    """Theorem 2.4 with dense Hessians of rank one in three dimensions, and Remark 2.5."""
    rng = np.random.default_rng(0)
    eta, size, n = 0.3, 1, 8
    noise = (n - size) / (size * (n - 1))
    sharpness, non_uniformity, growth = [], [], []
    for scale in np.geomspace(0.3, 3, 200):
        rows = scale * rng.normal(size=(n, 3))
        each = np.einsum("na,nb->nab", rows, rows)
        mean = each.mean(0)
        sigma = np.mean(each @ each, 0) - mean @ mean
        step = np.eye(3) - eta * mean
        growth.append(np.linalg.eigvalsh(step @ step + eta**2 * noise * sigma)[-1])
        sharpness.append(np.linalg.eigvalsh(mean)[-1])
        non_uniformity.append(np.sqrt(np.linalg.eigvalsh(sigma)[-1]))
    stable = np.array(growth) <= 1
    allowed = sgd_region(eta, size, n).allows(sharpness, non_uniformity)
    assert np.all(allowed[stable])
    assert 20 < np.sum(stable) < np.sum(allowed) < 180  # necessary, and not sufficient


def test_the_region_by_hand():
    region = sgd_region(0.5, 1, 10)  # 0 <= a <= 4, s <= 2; a circle of radius 2 about (2, 0)
    a = np.array([-0.1, 0.0, 1.0, 2.0, 4.0, 4.1])
    np.testing.assert_allclose(region.boundary(a), [np.nan, 0, 3**0.5, 2, 0, np.nan])
    np.testing.assert_array_equal(region.allows(a, 1.9), [False, True, True, True, True, False])
    assert not region.allows(2.0, 2.1)
    np.testing.assert_allclose(region.growth(a[1:5], region.boundary(a[1:5])), 1)
    full = sgd_region(0.5, 10, 10)
    assert full.allows(3.9, 1e9)
    assert full.boundary(1.0) == np.inf


def test_errors():
    with pytest.raises(ValueError, match=r"learning_rate must be positive and finite; got 0"):
        sgd_region(0.0, 1, 10)
    with pytest.raises(ValueError, match=r"num_examples must be at least 2; got 1"):
        sgd_region(0.1, 1, 1)
    with pytest.raises(ValueError, match=r"at most the number of examples, 10; got 11"):
        sgd_region(0.1, 11, 10)
    with pytest.raises(ValueError, match=r"batch_size must be at least 1; got 0"):
        sgd_region(0.1, 0, 10)
    with pytest.raises(TypeError, match=r"batch_size must be an integer; got 1\.5"):
        sgd_region(0.1, 1.5, 10)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"sharpness must be positive; got -1"):
        sgd_learning_rate_limit(-1.0, 1.0, 1, 10)
