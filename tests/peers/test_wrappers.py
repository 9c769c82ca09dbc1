"""Rules inside and beside the wrappers of optax: accumulation, conditions, masks, injection.

Six combinations cannot work and say so: an aggregator of examples (`winsorize`,
`median_of_means`, and their two optimizers) inside `MultiSteps`, whose accumulator has no axis of
examples.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from igr import per_example, transforms

pytestmark = pytest.mark.slow
RNG = np.random.default_rng(0)
X, Y = jnp.asarray(RNG.normal(size=(8, 3))), jnp.asarray(RNG.normal(size=8))
PARAMS = {"w": jnp.asarray(RNG.normal(size=(3, 2))), "v": jnp.asarray(RNG.normal(size=2))}


def example_loss(params, example):
    x, y = example
    return (jnp.tanh(x @ params["w"]) @ params["v"] - y) ** 2 / 2


def of(x, y):
    return lambda p: jnp.mean(jax.vmap(example_loss, (None, 0))(p, (x, y)))


def each(params, x, y):
    return per_example.per_example_gradients(example_loss, params, (x, y))


def close(found, expected, rtol=1e-6):  # optax accumulates and injects in single precision
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-12), found, expected
    )


MICRO = [(X[i : i + 2], Y[i : i + 2]) for i in range(0, 8, 2)]


def test_penalties_of_micro_batches_are_averaged_before_the_accumulation():
    sgd = optax.MultiSteps(optax.sgd(0.1), 4).gradient_transformation()
    rule = optax.chain(transforms.add_gradient_norm_penalty(0.3), sgd)
    params, state = PARAMS, rule.init(PARAMS)
    for x, y in MICRO:
        updates, state = rule.update(jax.grad(of(x, y))(params), state, params, value_fn=of(x, y))
        params = optax.apply_updates(params, updates)
    oracle = [
        jax.grad(lambda p, b=b: of(*b)(p) + 0.3 * square(jax.grad(of(*b))(p)))(PARAMS)
        for b in MICRO
    ]
    mean = jax.tree.map(lambda *g: sum(g) / 4, *oracle)
    close(params, jax.tree.map(lambda p, g: p - 0.1 * g, PARAMS, mean))


def square(tree):
    return sum(jnp.sum(x**2) for x in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    "aggregator", [transforms.winsorize(25), transforms.median_of_means(2)], ids=["clip", "median"]
)
def test_aggregated_micro_batches_are_accumulated(aggregator):
    sgd = optax.MultiSteps(optax.sgd(0.1), 4).gradient_transformation()
    rule = optax.chain(aggregator, sgd)
    params, state = PARAMS, rule.init(PARAMS)
    for x, y in MICRO:
        updates, state = rule.update(each(params, x, y), state, params)
        params = optax.apply_updates(params, updates)
    robust = [aggregator.update(each(PARAMS, *b), aggregator.init(PARAMS))[0] for b in MICRO]
    mean = jax.tree.map(lambda *g: sum(g) / 4, *robust)
    close(params, jax.tree.map(lambda p, g: p - 0.1 * g, PARAMS, mean))


@pytest.mark.parametrize(
    "rule",
    [
        transforms.winsorize(25), transforms.winsorized_sgd(0.1, 25),
        transforms.median_of_means(2), transforms.median_of_means_sgd(0.1, 2),
    ],
)  # fmt: skip
def test_an_aggregator_inside_the_accumulation_is_refused(rule):
    steps = optax.MultiSteps(rule, 2)
    with pytest.raises((ValueError, TypeError)):
        steps.update(each(PARAMS, X, Y), steps.init(PARAMS), PARAMS)


@pytest.mark.parametrize("momentum", [None, 0.9])
def test_decays_inside_the_accumulation_act_on_the_last_step_alone(momentum):
    """Of finished steps, so that k micro-batches of one batch are one step on it."""
    rule = transforms.l2_stopped_sgd(0.1, 0.02, 2, momentum)
    steps = optax.MultiSteps(rule, 4).gradient_transformation()
    one, many = (PARAMS, rule.init(PARAMS)), (PARAMS, steps.init(PARAMS))
    for _ in range(3):
        updates, state = rule.update(jax.grad(of(X, Y))(one[0]), one[1], one[0])
        one = optax.apply_updates(one[0], updates), state
        for x, y in MICRO:
            updates, state = steps.update(jax.grad(of(x, y))(many[0]), many[1], many[0])
            many = optax.apply_updates(many[0], updates), state
    close(many[0], one[0])


def test_updates_that_are_not_finite_are_skipped():
    rule = optax.apply_if_finite(transforms.egr(0.1, 0.3), 3)
    state = rule.init(PARAMS)
    bad = lambda p: of(X, Y)(p) * jnp.nan
    updates, state = rule.update(jax.grad(bad)(PARAMS), state, PARAMS, value_fn=bad)
    close(optax.apply_updates(PARAMS, updates), PARAMS)
    good = of(X, Y)
    updates, state = rule.update(jax.grad(good)(PARAMS), state, PARAMS, value_fn=good)
    plain = transforms.egr(0.1, 0.3)
    expected, _ = plain.update(jax.grad(good)(PARAMS), plain.init(PARAMS), PARAMS, value_fn=good)
    close(updates, expected)
    assert int(state.total_notfinite) == 1


@pytest.mark.parametrize("wrapper", [optax.conditionally_transform, optax.conditionally_mask])
def test_a_condition_on_the_step(wrapper):
    """Every other step: passed through as it is, or zeros."""
    rule = wrapper(
        transforms.add_gradient_norm_penalty(0.3), lambda step, **extra: step % 2 == 0,
        forward_extra_args=True,
    )  # fmt: skip
    loss, state = of(X, Y), rule.init(PARAMS)
    gradient = jax.grad(loss)(PARAMS)
    penalized = transforms.egr_value_and_grad(loss, 0.3)(PARAMS)[1]
    first, state = rule.update(gradient, state, PARAMS, value_fn=loss)
    second, _ = rule.update(gradient, state, PARAMS, value_fn=loss)
    close(first, penalized)
    skipped = (
        gradient if wrapper is optax.conditionally_transform else optax.tree.zeros_like(gradient)
    )
    close(second, skipped)


def test_masks_and_partitions():
    decay = transforms.decay_until(0.1, 5)
    masked = optax.masked(decay, {"w": True, "v": False})
    zeros = optax.tree.zeros_like(PARAMS)
    updates, _ = masked.update(zeros, masked.init(PARAMS), PARAMS)
    close(updates, {"w": -0.1 * PARAMS["w"], "v": zeros["v"]})
    split = optax.partition(
        {"decayed": optax.chain(optax.sgd(0.1), decay), "plain": optax.sgd(0.1)},
        {"w": "decayed", "v": "plain"},
    )
    gradient = jax.grad(of(X, Y))(PARAMS)
    updates, _ = split.update(gradient, split.init(PARAMS), PARAMS)
    close(
        updates,
        {"w": -0.1 * gradient["w"] - 0.1 * PARAMS["w"], "v": -0.1 * gradient["v"]},
    )
    # A rule that needs the whole loss has a mask of its own, and refuses this one.
    outside = optax.masked(transforms.egr(0.1, 0.1), {"w": True, "v": False})
    with pytest.raises(ValueError, match="mask"):
        outside.update(gradient, outside.init(PARAMS), PARAMS, value_fn=of(X, Y))


def test_injected_rates_follow_a_schedule():
    rule = optax.inject_hyperparams(transforms.egr, static_args=("mask",))(
        optax.linear_schedule(0.1, 0.0, 2), optax.linear_schedule(0.3, 0.1, 2)
    )
    state, loss = rule.init(PARAMS), of(X, Y)
    for rate, mu in ((0.1, 0.3), (0.05, 0.2), (0.0, 0.1)):
        updates, state = rule.update(jax.grad(loss)(PARAMS), state, PARAMS, value_fn=loss)
        expected = transforms.egr_value_and_grad(loss, mu)(PARAMS)[1]
        close(updates, jax.tree.map(lambda g, r=rate: -r * g, expected))
        np.testing.assert_allclose(state.hyperparams["learning_rate"], rate, atol=1e-12)


def test_lookahead_and_flattening():
    loss = of(X, Y)
    flat = optax.flatten(transforms.decay_until(0.1, 3))
    updates, _ = flat.update(optax.tree.zeros_like(PARAMS), flat.init(PARAMS), PARAMS)
    close(updates, jax.tree.map(lambda p: -0.1 * p, PARAMS))
    chained = optax.named_chain(
        ("penalty", transforms.add_gradient_norm_penalty(0.3)), ("sgd", optax.sgd(0.1))
    )
    updates, state = chained.update(
        jax.grad(loss)(PARAMS), chained.init(PARAMS), PARAMS, value_fn=loss
    )
    plain = transforms.egr(0.1, 0.3)
    close(
        updates,
        plain.update(jax.grad(loss)(PARAMS), plain.init(PARAMS), PARAMS, value_fn=loss)[0],
    )
    assert int(state["penalty"].count) == 1


# What a private optimizer is given: the gradients of examples, each clipped by its own norm.


def test_private_aggregation_takes_these_gradients():
    gradients = each(PARAMS, X, Y)
    private = optax.contrib.differentially_private_aggregate(0.5, 0.0, key=0)
    found, _ = private.update(gradients, private.init(PARAMS), PARAMS)
    rows = np.concatenate([np.reshape(a, (8, -1)) for a in jax.tree.leaves(gradients)], axis=1)
    lengths = np.linalg.norm(rows, axis=1)
    expected = (rows * np.minimum(1, 0.5 / lengths)[:, None]).mean(0)
    flat = np.concatenate([np.ravel(a) for a in jax.tree.leaves(found)])
    np.testing.assert_allclose(flat, expected, rtol=1e-10)
    clipped, count = optax.per_example_global_norm_clip(jax.tree.leaves(gradients), 0.5)
    assert int(count) == np.sum(lengths > 0.5)
    np.testing.assert_allclose(
        np.concatenate([np.ravel(a) for a in clipped]), expected * 8, rtol=1e-10
    )


@pytest.mark.parametrize("rule", [transforms.winsorize(20), transforms.median_of_means(4)])
def test_one_example_moves_a_robust_mean_by_no_more_than_the_spread_of_the_others(rule):
    gradients = each(PARAMS, X, Y)
    spoiled = jax.tree.map(lambda g: g.at[3].set(1e6), gradients)
    found, _ = rule.update(spoiled, rule.init(PARAMS), PARAMS)
    for got, g in zip(jax.tree.leaves(found), jax.tree.leaves(gradients), strict=True):
        others = jnp.delete(g, 3, axis=0)
        bound = jnp.max(abs(g)) + jnp.max(others) - jnp.min(others)
        assert np.all(abs(got) <= bound) if "winsorize" in str(rule) else np.all(abs(got) < 1e6)


# Wrappers that let everything through change no update, of any rule; those that leave parameters
# out work around rules that act leaf by leaf, and are refused by name by the others.

WITH_LOSS = {
    "egr": lambda: transforms.egr(0.1, 0.3),
    "add_gradient_norm_penalty": lambda: transforms.add_gradient_norm_penalty(0.3),
    "metric_decay": lambda: transforms.metric_decay(0.1),
    "metric_sgd": lambda: transforms.metric_sgd(0.1, 0.1),
    "selective_decay": lambda: transforms.selective_decay(0.1, 0.5),
    "selective_l2_sgd": lambda: transforms.selective_l2_sgd(0.1, 0.1, 0.5),
    "decay_until_then_selective": lambda: transforms.decay_until_then_selective(0.1, 1, 0.5),
    "l2_stopped_selective_sgd": lambda: transforms.l2_stopped_selective_sgd(0.1, 0.1, 1, 0.5),
    "drift_adjusted": transforms.drift_adjusted,
    "scale_by_drift_adjusted_rate": transforms.scale_by_drift_adjusted_rate,
}
BY_LEAF = {
    "decay_until": lambda: transforms.decay_until(0.1, 2),
    "l2_stopped_sgd": lambda: transforms.l2_stopped_sgd(0.1, 0.1, 2),
    "l2_stopped_sgd with momentum": lambda: transforms.l2_stopped_sgd(0.1, 0.1, 2, 0.9),
}
OF_EXAMPLES = {
    "winsorize": lambda: transforms.winsorize(20),
    "winsorized_sgd": lambda: transforms.winsorized_sgd(0.1, 20),
    "median_of_means": lambda: transforms.median_of_means(2),
    "median_of_means_sgd": lambda: transforms.median_of_means_sgd(0.1, 2),
}
RULES = WITH_LOSS | BY_LEAF | OF_EXAMPLES
TRANSPARENT = {
    "chain": lambda rule: optax.chain(optax.identity(), rule),
    "named_chain": lambda rule: optax.named_chain(("one", rule)),
    "with_extra_args_support": optax.with_extra_args_support,
    "zero_nans": lambda rule: optax.chain(optax.zero_nans(), rule),
    "clip_by_global_norm": lambda rule: optax.chain(rule, optax.clip_by_global_norm(1e9)),
    "masked": lambda rule: optax.masked(rule, {"w": True, "v": True}),
    "masked by a function": lambda rule: optax.masked(rule, lambda p: {"w": True, "v": True}),
    "partition": lambda rule: optax.partition({"a": rule}, {"w": "a", "v": "a"}),
    "multi_transform": lambda rule: optax.multi_transform(
        {"a": rule}, lambda p: jax.tree.map(lambda _: "a", p)
    ),
    "apply_if_finite": lambda rule: optax.apply_if_finite(rule, 2),
    "conditionally_transform": lambda rule: optax.conditionally_transform(
        rule, lambda step, **extra: True, forward_extra_args=True
    ),
    "MultiSteps": lambda rule: optax.MultiSteps(rule, 1).gradient_transformation(),
}
KEEP_THE_SHAPE = ("apply_if_finite", "conditionally_transform", "MultiSteps")


def two_steps(rule, gradients, **extra):
    params, state, found = PARAMS, rule.init(PARAMS), []
    for _ in range(2):
        updates, state = rule.update(gradients(params), state, params, **extra)
        params = optax.apply_updates(params, updates)
        found.append(updates)
    return found


@pytest.mark.parametrize("wrapper", TRANSPARENT)
@pytest.mark.parametrize("name", RULES)
def test_a_wrapper_that_lets_everything_through_changes_nothing(name, wrapper):
    make, around, extra = RULES[name], TRANSPARENT[wrapper], {}
    gradients = jax.grad(of(X, Y))
    if name in WITH_LOSS:
        extra = {"value_fn": of(X, Y)}
    elif name in OF_EXAMPLES:
        gradients = lambda params: each(params, X, Y)
        if wrapper in KEEP_THE_SHAPE:  # an aggregator takes away the axis of examples
            with pytest.raises((ValueError, TypeError)):
                two_steps(around(make()), gradients)
            return
    found = two_steps(around(make()), gradients, **extra)
    for got, expected in zip(found, two_steps(make(), gradients, **extra), strict=True):
        close(got, expected)


@pytest.mark.parametrize("name", RULES)
def test_a_wrapper_that_leaves_parameters_out(name):
    make = RULES[name]
    gradients = each(PARAMS, X, Y) if name in OF_EXAMPLES else jax.grad(of(X, Y))(PARAMS)
    for around in (
        lambda rule: optax.masked(rule, {"w": True, "v": False}),
        lambda rule: optax.partition({"a": rule, "b": optax.identity()}, {"w": "a", "v": "b"}),
    ):
        rule = around(make())
        if name not in BY_LEAF:
            with pytest.raises(ValueError, match="mask"):
                rule.update(gradients, rule.init(PARAMS), PARAMS, value_fn=of(X, Y))
            continue
        found, _ = rule.update(gradients, rule.init(PARAMS), PARAMS)
        alone = make()
        expected, _ = alone.update(
            {"w": gradients["w"]}, alone.init({"w": PARAMS["w"]}), {"w": PARAMS["w"]}
        )
        close(found, {"w": expected["w"], "v": gradients["v"]})


@pytest.mark.parametrize("name", [*WITH_LOSS, *BY_LEAF])
def test_params_as_one_vector(name):
    """Rules that act entry by entry do not mind; the loss of the others is one of params."""
    rule, loss = optax.flatten(RULES[name]()), of(X, Y)
    gradient = jax.grad(loss)(PARAMS)
    if name in WITH_LOSS:
        with pytest.raises(TypeError, match=r"one vector of shape \(8,\).*optax\.flatten"):
            rule.update(gradient, rule.init(PARAMS), PARAMS, value_fn=loss)
        return
    alone = RULES[name]()
    expected, _ = alone.update(gradient, alone.init(PARAMS), PARAMS)
    close(rule.update(gradient, rule.init(PARAMS), PARAMS)[0], expected)
