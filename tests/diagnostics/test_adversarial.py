import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sklearn.datasets
import sklearn.metrics

from igr.diagnostics import (
    accuracy,
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


def test_a_batch_is_a_pair_or_x_and_y(problem):
    params, x, y = problem
    together = sign_perturbed(loss, params, (x, y), 0.1)
    for apart in (
        sign_perturbed(loss, params, x, y, 0.1),
        sign_perturbed(loss, params, x=x, y=y, epsilon=0.1),
        adversarial_detection(apply_fn, loss, params, (x, y), 0.1).perturbed,
        adversarial_detection(apply_fn, loss, params, batch=(x, y), epsilon=0.1).perturbed,
    ):
        np.testing.assert_array_equal(apart, together)
    with pytest.raises(TypeError, match="epsilon must be given"):
        sign_perturbed(loss, params, (x, y))
    with pytest.raises(TypeError, match=r"batch must be the pair \(x, y\)"):
        sign_perturbed(loss, params, x, 0.1)


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


@pytest.mark.slow
def test_probabilities_tell_attacks_on_digits_and_logits_do_not():
    """The areas the docstring states, on a network trained to 97 % in single precision."""
    pixels, classes = sklearn.datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(classes))
    x, y = jnp.asarray(pixels[order] / 16, jnp.float32), jnp.asarray(classes[order], jnp.int32)
    keys = jax.random.split(jax.random.key(0), 3)
    scales = {(64, 128): 0.18, (128, 128): 0.125, (128, 10): 0.09}
    params = [
        (scale * jax.random.normal(key, shape, jnp.float32), jnp.zeros(shape[1], jnp.float32))
        for key, (shape, scale) in zip(keys, scales.items(), strict=True)
    ]

    def logits(params, x):
        for w, b in params[:-1]:
            x = jax.nn.relu(x @ w + b)
        return x @ params[-1][0] + params[-1][1]

    probabilities = lambda p, x: jax.nn.softmax(logits(p, x))
    loss = lambda p, e: -jax.nn.log_softmax(logits(p, e[0]))[e[1]]
    optimizer = optax.adam(1e-3)

    @jax.jit
    def trained(params):
        def step(carry, key):
            params, state = carry
            i = jax.random.randint(key, (64,), 0, 1000)
            mean = lambda p: jnp.mean(jax.vmap(loss, (None, 0))(p, (x[i], y[i])))
            updates, state = optimizer.update(jax.grad(mean)(params), state)
            return (optax.apply_updates(params, updates), state), None

        keys = jax.random.split(jax.random.key(1), 2000)
        return jax.lax.scan(step, (params, optimizer.init(params)), keys)[0][0]

    params, x, y = trained(params), x[1000:], y[1000:]
    assert accuracy(logits, params, x, y) > 0.96
    for epsilon in (0.05, 0.1, 0.2):
        told = adversarial_detection(probabilities, loss, params, x, y, epsilon, low=0, high=1)
        assert told.roc.area > 0.7
        untold = adversarial_detection(logits, loss, params, x, y, epsilon, low=0, high=1)
        assert untold.roc.area < 0.5


def test_errors(problem):
    params, x, y = problem
    with pytest.raises(ValueError, match=r"epsilon must be positive and finite; got 0"):
        sign_perturbed(loss, params, x, y, 0.0)
    with pytest.raises(ValueError, match=r"agree in their leading example axis"):
        sign_perturbed(loss, params, x, y[:3], 0.1)
    with pytest.raises(ValueError, match=r"x must be floating to be differentiated by; got int"):
        sign_perturbed(loss, params, jnp.ones((7, 3), int), y, 0.1)
    with pytest.raises(ValueError, match=r"low must be below high; got 1 and 0"):
        sign_perturbed(loss, params, x, y, 0.1, low=1, high=0)
    with pytest.raises(ValueError, match=r"chunk must be at least 1; got 0"):
        example_kernel_traces(apply_fn, params, x, chunk=0)
    with pytest.raises(ValueError, match=r"positives must be a vector of scores; got shape \(0,\)"):
        roc_curve([1.0], [])
    with pytest.raises(ValueError, match=r"negatives must be numbers; got 1 NaN"):
        roc_curve([np.nan, 1.0], [1.0])
