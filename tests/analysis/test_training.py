"""Training against hand-made runs: the same batches, rules, penalties and numbers."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from analysis.data import Classification, Regression, TrainTest, real_or_random
from analysis.models import MLP, Dense, ResNet
from analysis.training import Options, Steps, half_squared_error, train
from igr import penalties, transforms
from igr.per_example import grouped_gradients, per_example_gradients
from tests.analysis.small_training import leaves, run, sgd, start_of, two_classes


@pytest.fixture(scope="module")
def data():
    return two_classes()


# The steps


def test_full_batch_descent_on_the_six_dimensional_example():
    six = real_or_random("real")
    runs = train(
        lambda key: Dense(6, 1, key),
        sgd,
        six,
        grid={"learning_rate": (0.1, 0.3)},
        seeds=(0, 5),
        stop=Steps(4),
        options=Options(
            batch_size=None,
            samples=[0, 3],
            loss=half_squared_error,
        ),
    )
    for i, rate in enumerate(runs.settings["learning_rate"]):
        for j, seed in enumerate(runs.seeds):
            dense = Dense(6, 1, jax.random.split(jax.random.key(seed))[0])
            w, b, seen = np.asarray(dense.weight), np.zeros(1), []
            for _ in range(5):
                error = six.train.x @ w + b - six.train.y
                seen.append(np.mean(error**2) / 2)
                last = w, b
                w = w - rate * six.train.x.T @ error / 4
                b = b - rate * error.mean(axis=0)
            np.testing.assert_allclose(runs["train_loss"][i, j], np.array(seen)[[0, 3, 4]])
            kept = runs.model_of(i, j)
            np.testing.assert_allclose(kept.weight, last[0], rtol=1e-12)
            np.testing.assert_allclose(kept.bias, last[1], rtol=1e-12)
    assert runs.step.tolist() == [[0, 3, 4], [0, 3, 4]]
    assert "train_accuracy" not in runs.metrics


def zeros(key):
    return eqx.tree_at(lambda d: d.weight, Dense(13, 1, key), jnp.zeros((13, 1)))


def sum_of(outputs, y):
    return jnp.sum(outputs)


def counted(steps, samples=1, seeds=(0, 1)):
    """How often each example was seen: with loss w . x and one-hot x each time takes 1 off w."""
    part = Regression(np.eye(13), np.zeros((13, 1)))
    runs = train(
        zeros,
        sgd,
        TrainTest(part, part, ""),
        grid={"learning_rate": (4.0,)},
        seeds=seeds,
        stop=Steps(steps),
        options=Options(
            batch_size=4,
            samples=samples,
            loss=sum_of,
        ),
    )
    return -np.asarray(runs.model.weight)[0, :, :, 0]


@pytest.mark.slow
def test_an_epoch_sees_every_example_once_and_another_order_each_time():
    seen = counted(3)  # 12 of 13 fill batches
    np.testing.assert_array_equal(np.sort(seen), [[0.0] + [1.0] * 12] * 2)
    half = counted(5)
    assert (half.sum(axis=1) == 20).all()
    assert (half.max(axis=1) == 2).all()
    first = counted(1)
    assert (first[0] != first[1]).any()
    assert (counted(4) - seen != first).any()  # the second epoch's first batch is another
    np.testing.assert_array_equal(counted(5, samples=[0, 1, 2, 4]), half)


def by_hand(optimizer, data, gradient=None, penalty=lambda apply_fn, params, x, y: 0.0, steps=2):
    """Two full steps with optax alone, outside of any engine."""
    x, y = jnp.asarray(data.train.x), jnp.asarray(data.train.y)
    params, static = eqx.partition(start_of(0), eqx.is_inexact_array)

    def apply_fn(params, x):
        return eqx.combine(params, static)(x)

    def example_loss_fn(params, example):
        outputs = apply_fn(params, example[0])
        return optax.softmax_cross_entropy_with_integer_labels(outputs, example[1])

    def value_fn(params):
        losses = jax.vmap(example_loss_fn, (None, 0))(params, (x, y))
        return jnp.mean(losses) + penalty(apply_fn, params, x, y)

    def output_loss_fn(outputs):
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(outputs, y))

    @jax.jit
    def step(params, state):
        if gradient is None:
            g = jax.grad(value_fn)(params)
        else:
            g = gradient(example_loss_fn, params, (x, y))
        updates, state = optimizer.update(
            g,
            state,
            params,
            value_fn=value_fn,
            apply_fn=lambda p: jax.vmap(apply_fn, (None, 0))(p, x),
            output_loss_fn=output_loss_fn,
        )
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return jax.tree.leaves(params)


slow = partial(pytest.param, marks=pytest.mark.slow)
RULES = {
    "egr": (lambda h: transforms.egr(h, 0.2, 0.9), None),
    "gauss_newton": (lambda h: transforms.metric_sgd(h, 0.02, "gauss_newton"), None),
    "metric": (lambda h: transforms.metric_sgd(h, 0.02), None),
    "selective": (lambda h: transforms.selective_l2_sgd(h, 0.02, 0.3), None),
    "stopped": (lambda h: transforms.l2_stopped_sgd(h, 0.02, 1), None),
    "stopped_selective": (lambda h: transforms.l2_stopped_selective_sgd(h, 0.02, 1, 0.3), None),
    "winsorized": (lambda h: transforms.winsorized_sgd(h, 20), per_example_gradients),
    "winsorized_gradient": (optax.adam, partial(transforms.winsorized_gradient, percentile=20)),
    "median_of_means": (
        lambda h: transforms.median_of_means_sgd(h, 4),
        partial(grouped_gradients, num_groups=4),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RULES)
def test_every_rule_takes_its_own_steps(data, name):
    rule, gradient = RULES[name]
    runs = run(data, make_optimizer=lambda at: rule(at["learning_rate"]), gradient=gradient)
    expected = by_hand(optax.with_extra_args_support(rule(0.3)), data, gradient)
    for found, want in zip(leaves(runs.model_of(0, 0)), expected, strict=True):
        np.testing.assert_allclose(found, want, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_a_rule_is_given_the_loss_of_the_batch_whole_and_in_parts(data):
    def from_parts(settings):
        def update(updates, state, params=None, **extra):
            h = settings["learning_rate"]
            whole = jax.grad(extra["value_fn"])(params)
            loss, network = extra["output_loss_fn"], extra["apply_fn"]
            parts = jax.grad(lambda p: loss(network(p)))(params)
            thrice = jax.tree.map(lambda *g: -h / 3 * sum(g), whole, parts, extra["grad"])
            return thrice, state + 0 * extra["value"]

        return optax.GradientTransformationExtraArgs(lambda params: jnp.zeros(()), update)

    found, plain = run(data, make_optimizer=from_parts), run(data)
    for a, b in zip(leaves(found.model), leaves(plain.model), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


PENALTIES = {
    "weight": lambda f, e, p, x, y: penalties.weight_penalty(p),
    "confidence": lambda f, e, p, x, y: penalties.confidence_penalty(f, p, x),
    "double_backprop": lambda f, e, p, x, y: penalties.double_backprop(e, p, x, y),
    "jacobian": lambda f, e, p, x, y: penalties.jacobian_penalty(f, p, x),
    "frobenius": lambda f, e, p, x, y: penalties.frobenius_penalty(f, p, x),
    "spectral": lambda f, e, p, x, y: penalties.spectral_penalty(f, p, x, jax.random.key(7)),
    "loss_gradient": lambda f, e, p, x, y: penalties.loss_gradient_penalty(e, p, x, y),
    "trace": lambda f, e, p, x, y: penalties.gradient_similarity_trace(f, p, x),
    "logdet": lambda f, e, p, x, y: penalties.gradient_similarity_logdet(f, p, x, ridge=0.1),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [n if n == "double_backprop" else slow(n) for n in PENALTIES])
def test_every_penalty_is_descended_with_its_weight(data, name):
    penalty = PENALTIES[name]

    def example_loss_of(apply_fn):
        return lambda p, e: optax.softmax_cross_entropy_with_integer_labels(apply_fn(p, e[0]), e[1])

    runs = run(
        data,
        grid={"learning_rate": (0.3,), "weight": (0.0, 0.05)},
        penalty=lambda at: (
            at.settings["weight"] * penalty(at.apply_fn, at.example_loss_fn, at.params, at.x, at.y)
        ),
    )
    plain = by_hand(optax.with_extra_args_support(optax.sgd(0.3)), data)
    penalized = by_hand(
        optax.with_extra_args_support(optax.sgd(0.3)),
        data,
        penalty=lambda f, p, x, y: 0.05 * penalty(f, example_loss_of(f), p, x, y),
    )
    for i, expected in enumerate((plain, penalized)):
        for found, want in zip(leaves(runs.model_of(0, i, 0)), expected, strict=True):
            np.testing.assert_allclose(found, want, rtol=1e-9, atol=1e-12)
    assert any(abs(a - b).max() > 1e-5 for a, b in zip(plain, penalized, strict=True))


# Noise, dropout, state


@pytest.mark.slow
def test_certain_label_noise_is_training_on_the_other_class(data):
    flipped = TrainTest(Classification(data.train.x, 1 - data.train.y, 2), data.test, "")
    noisy, other = run(data, label_noise=1.0), run(flipped)
    for a, b in zip(leaves(noisy.model), leaves(other.model), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.slow
def test_dropout_trains_with_keys_and_is_measured_without(data):
    def dropped(key):
        return MLP(3, 2, 4, 1, jnp.tanh, dropout=0.5, key=key)

    both = run(data, make_model=dropped, seeds=(0, 1))
    again = run(data, make_model=dropped)
    plain = run(data)
    assert both["train_loss"][0, 0, 0] == pytest.approx(plain["train_loss"][0, 0, 0])
    assert abs(both["train_loss"][0, 0, 1] - plain["train_loss"][0, 0, 1]) > 1e-6
    np.testing.assert_allclose(both["train_loss"][0, 0], again["train_loss"][0, 0], rtol=1e-12)


@pytest.mark.slow
def test_a_network_with_batch_normalisation_trains_and_keeps_its_state():
    rng = np.random.default_rng(0)
    y = np.arange(16) % 2
    x = rng.normal(size=(16, 1, 4, 4)) + 2.0 * y[:, None, None, None]
    part = Classification(x, y, 2)
    make = partial(ResNet, 2, channels=1, widths=(4,), blocks=1)
    runs = train(
        lambda key: eqx.nn.make_with_state(make)(key=key),
        sgd,
        TrainTest(part, part, ""),
        grid={"learning_rate": (0.1,)},
        seeds=(0, 1),
        stop=Steps(60),
        options=Options(
            batch_size=8,
            samples=3,
        ),
    )
    assert (runs["train_accuracy"][0, :, -1] == 1).all()
    state = jax.tree.map(lambda v: v[0, 0], runs.state)
    model = eqx.nn.inference_mode(runs.model_of(0, 0))
    outputs = jax.vmap(lambda x: model(x, state)[0])(jnp.asarray(x))
    loss = optax.softmax_cross_entropy_with_integer_labels(outputs, jnp.asarray(y)).mean()
    assert float(loss) == pytest.approx(runs["train_loss"][0, 0, -1], rel=1e-6)
