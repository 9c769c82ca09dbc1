import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from igr.diagnostics import (
    adversarial_detection,
    example_kernel_traces,
    roc_curve,
    sign_perturbed,
)


def apply_fn(p, x):
    return jnp.tanh(x @ p["w"]) @ p["v"]


def loss(p, example):
    return -jax.nn.log_softmax(apply_fn(p, example[0]))[example[1]]


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(3, 4))), "v": jnp.asarray(rng.normal(size=(4, 2)))}
    return params, jnp.asarray(rng.normal(size=(7, 3))), jnp.asarray(rng.integers(0, 2, 7))


def dense_traces(params, x):
    """From the Jacobian by hand: |tanh|^2 an output for v, and (v (1 - tanh^2)) x' for w."""
    h = np.tanh(x @ params["w"])
    back = (1 - h**2)[:, :, None] * np.array(params["v"])
    return 2 * np.sum(h**2, 1) + np.sum(x**2, 1) * np.sum(back**2, (1, 2))


def test_detection_from_the_definitions(problem):
    params, x, y = problem
    found = jax.jit(lambda p: sign_perturbed(loss, p, x, y, 0.1))(params)
    shift = 1e-6 * np.eye(3)
    value = jax.jit(jax.vmap(lambda x, y: loss(params, (x, y))))
    for k in range(3):
        rising = value(x + shift[k], y) > value(x - shift[k], y)
        np.testing.assert_allclose(found[:, k] - x[:, k], np.where(rising, 0.1, -0.1))
    assert np.all(value(found, y) > value(x, y))
    detected = adversarial_detection(apply_fn, loss, params, x, y, 0.1, chunk=3)
    np.testing.assert_allclose(detected.perturbed, found)
    np.testing.assert_allclose(detected.clean_scores, dense_traces(params, np.array(x)))
    np.testing.assert_allclose(detected.perturbed_scores, dense_traces(params, np.array(found)))
    pairs = detected.perturbed_scores[:, None] > detected.clean_scores
    np.testing.assert_allclose(detected.roc.area, np.mean(pairs))


def test_perturbed_inputs_stay_within_limits_and_pytrees():
    x = {"a": jnp.array([[0.0, 0.95]], jnp.float32), "b": jnp.array([0.5])}
    total = lambda p, e: jnp.sum(e[0]["a"]) - 0 * e[0]["b"]
    found = sign_perturbed(total, None, x, jnp.zeros(1), 0.25, low=0.1, high=1.0)
    np.testing.assert_array_equal(found["a"], np.array([[0.25, 1.0]], np.float32))
    assert found["a"].dtype == jnp.float32
    assert found["b"] == 0.5


@pytest.mark.parametrize("ties", [False, True])
def test_the_curve_is_that_of_scikit_learn(ties):
    rng = np.random.default_rng(0)
    negatives, positives = rng.normal(size=30), rng.normal(size=20) + 0.7
    if ties:
        negatives, positives = np.round(negatives), np.round(positives)
    labels, scores = np.repeat([0, 1], [30, 20]), np.concatenate([negatives, positives])
    found = roc_curve(negatives, positives)
    fpr, tpr, thresholds = sklearn.metrics.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(found.false_positive, fpr)
    np.testing.assert_allclose(found.true_positive, tpr)
    np.testing.assert_allclose(found.threshold, thresholds)
    np.testing.assert_allclose(found.area, sklearn.metrics.roc_auc_score(labels, scores))


def test_errors(problem):
    params, x, y = problem
    with pytest.raises(ValueError, match=r"epsilon must be positive and finite, got 0"):
        sign_perturbed(loss, params, x, y, 0.0)
    with pytest.raises(ValueError, match=r"agree in their leading example axis"):
        sign_perturbed(loss, params, x, y[:3], 0.1)
    with pytest.raises(ValueError, match=r"x must be floating to be differentiated by; got int"):
        sign_perturbed(loss, params, jnp.ones((7, 3), int), y, 0.1)
    with pytest.raises(ValueError, match=r"low must be below high; got 1 and 0"):
        sign_perturbed(loss, params, x, y, 0.1, low=1, high=0)
    with pytest.raises(ValueError, match=r"chunk must be at least 1, got 0"):
        example_kernel_traces(apply_fn, params, x, chunk=0)
    with pytest.raises(ValueError, match=r"positives must be a vector of scores; got shape \(0,\)"):
        roc_curve([1.0], [])
    with pytest.raises(ValueError, match=r"negatives must be numbers; got 1 NaN"):
        roc_curve([np.nan, 1.0], [1.0])
