"""What optax's own tests demand of an optimizer, and a user of every rule."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest

from igr import transforms


class Rule(NamedTuple):
    factory: Callable[..., Any]
    options: dict[str, Any]
    static: tuple[str, ...] = ()
    scheduled: str | None = None  # a rate that may be a schedule
    per_example: bool = False


RATE = {"learning_rate": 1e-3}
RULES = {
    "egr": Rule(transforms.egr, {**RATE, "mu": 1e-4}, ("mask",), "mu"),
    "metric_sgd": Rule(transforms.metric_sgd, {**RATE, "strength": 1e-6}, ("mask",), "strength"),
    "selective_l2_sgd": Rule(
        transforms.selective_l2_sgd,
        {**RATE, "weight_decay": 1e-6, "threshold": 0.5},
        ("layers", "mask"),
        "weight_decay",
    ),
    "l2_stopped_sgd": Rule(
        transforms.l2_stopped_sgd,
        {**RATE, "weight_decay": 1e-3, "step": 100},
        ("mask",),
        "weight_decay",
    ),
    "l2_stopped_selective_sgd": Rule(
        transforms.l2_stopped_selective_sgd,
        {**RATE, "weight_decay": 1e-6, "step": 1, "threshold": 0.5},
        ("layers", "mask"),
        "weight_decay",
    ),
    "winsorized_sgd": Rule(
        transforms.winsorized_sgd,
        {**RATE, "percentile": 20},
        ("percentile", "mask"),
        per_example=True,
    ),
    "median_of_means_sgd": Rule(
        transforms.median_of_means_sgd,
        {**RATE, "num_groups": 3},
        ("num_groups", "mask"),
        per_example=True,
    ),
}


@pytest.fixture(params=sorted(RULES))
def rule(request) -> Rule:
    return RULES[request.param]


def make(rule: Rule, **options) -> optax.GradientTransformationExtraArgs:
    return rule.factory(**{**rule.options, **options})


def gradients(rule: Rule, value_fn, params):
    """The gradient, or six gradients that differ symmetrically from it."""
    gradient = jax.grad(value_fn)(params)
    if not rule.per_example:
        return gradient
    offsets = np.array([-2.0, 1.0, -0.5, 0.5, -1.0, 2.0])
    return jax.tree.map(
        lambda g: g + jnp.asarray(offsets, g.dtype).reshape(-1, *[1] * g.ndim), gradient
    )


def step(rule: Rule, optimizer, value_fn, params, state, **extra):
    updates, state = optimizer.update(
        gradients(rule, value_fn, params), state, params, value_fn=value_fn, **extra
    )
    return optax.apply_updates(params, updates), state


def assert_close(actual, desired, rtol=1e-12):
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    for a, d in zip(jax.tree.leaves(actual), jax.tree.leaves(desired), strict=True):
        np.testing.assert_allclose(a, d, rtol=rtol, atol=rtol)


def parabola(dtype=jnp.float32):
    goal = jnp.array([1.0, -1.0, 1.0], dtype)
    return jnp.array([-1.0, 10.0, 1.0], dtype), goal, lambda p: jnp.sum((p - goal) ** 2)


def rosenbrock(dtype=jnp.float32):
    def value_fn(p):
        return (1.0 - p[0]) ** 2 + 100.0 * (p[1] - p[0] ** 2) ** 2

    return jnp.zeros(2, dtype), jnp.ones(2, dtype), value_fn


def mixed(dtype=jnp.float32):
    goal = (jnp.array([1.0, -1.0, 2.0], dtype), jnp.array([[1.0, 0.0], [-1.0, 1.0]], dtype))

    def value_fn(params):
        return sum(jnp.sum((p - g) ** 2) for p, g in zip(params, goal, strict=True))

    return jax.tree.map(jnp.zeros_like, goal), goal, value_fn


@pytest.mark.parametrize("target", [parabola, rosenbrock, mixed])
def test_converges_in_one_scan(rule, target):
    params, goal, value_fn = target()
    optimizer = make(rule)
    state = optax.tree.map_params(optimizer, lambda v: v, optimizer.init(params))

    @jax.jit
    def run(carry):
        return jax.lax.scan(
            lambda c, _: (step(rule, optimizer, value_fn, *c), None), carry, length=15_000
        )[0]

    params, state = run((params, state))
    for p, g in zip(jax.tree.leaves(params), jax.tree.leaves(goal), strict=True):
        np.testing.assert_allclose(p, g, rtol=3e-2, atol=3e-2)


def test_takes_unknown_arguments_and_compiles_once(rule):
    params, _, value_fn = rosenbrock()
    optimizer, traces = make(rule), []

    @jax.jit
    def jitted(params, state, unknown):
        traces.append(1)
        return step(rule, optimizer, value_fn, params, state, unknown=unknown)

    state = optimizer.init(params)
    for i in range(3):
        params, state = jitted(params, state, jnp.array(i))
    assert len(traces) == 1


def test_inject_hyperparams(rule, network):
    value_fn, params = network
    plain = make(rule)
    injected = optax.inject_hyperparams(rule.factory, static_args=rule.static)(**rule.options)
    ours, state = params, injected.init(params)
    theirs, other = params, plain.init(params)
    for _ in range(2):
        ours, state = step(rule, injected, value_fn, ours, state)
        theirs, other = step(rule, plain, value_fn, theirs, other)
    assert_close(ours, theirs)
    assert_close(state.inner_state, other)
    state.hyperparams["learning_rate"] = jnp.array(0.0)
    frozen, _ = step(rule, injected, value_fn, ours, state)
    if rule.factory is transforms.egr or rule.per_example:  # the decays are not scaled by it
        assert_close(frozen, ours)


def test_schedules_equal_to_constants(rule, network):
    value_fn, params = network
    names = ["learning_rate"] + ([rule.scheduled] if rule.scheduled else [])
    scheduled = make(rule, **{n: optax.constant_schedule(rule.options[n]) for n in names})
    results = []
    for optimizer in (make(rule), scheduled):
        p, state = params, optimizer.init(params)
        for _ in range(3):
            p, state = step(rule, optimizer, value_fn, p, state)
        results.append(p)
    assert_close(*results)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64])
def test_dtypes_of_updates_and_state_are_stable(rule, dtype):
    params, _, value_fn = mixed(dtype)
    optimizer = make(rule)
    state = optimizer.init(params)

    @jax.jit
    def either(params, state, first):
        updates, new = optimizer.update(
            gradients(rule, value_fn, params), state, params, value_fn=value_fn
        )
        return jax.lax.cond(first, lambda: (updates, new), lambda: (params, state))

    for first in (True, False):
        updates, state = either(params, state, first)
        assert {u.dtype for u in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}


def test_vmap_over_seeds_equals_a_loop(rule):
    params, _, value_fn = rosenbrock(jnp.float64)
    optimizer = make(rule)
    seeds = params + jnp.array([[0.1, 0.2], [-0.3, 0.5], [0.0, -0.1]])

    def two_steps(params):
        carry = params, optimizer.init(params)
        for _ in range(2):
            carry = step(rule, optimizer, value_fn, *carry)
        return carry[0]

    assert_close(jax.jit(jax.vmap(two_steps))(seeds), jnp.stack([two_steps(s) for s in seeds]))


def test_checkpoints(rule, network, tmp_path):
    value_fn, params = network
    optimizer = make(rule, momentum=0.9)
    one_step = jax.jit(partial(step, rule, optimizer, value_fn))
    params, state = one_step(params, optimizer.init(params))
    expected = one_step(params, state)
    blank = jax.tree.map(jnp.zeros_like, state)
    restored = flax.serialization.from_bytes(blank, flax.serialization.to_bytes(state))
    assert_close(one_step(params, restored), expected, rtol=0)
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "state", blank)
    assert_close(one_step(params, restored), expected, rtol=0)


def test_state_maps_over_parameters(rule, network):
    _, params = network
    optimizer = make(rule, momentum=0.9)
    state = optax.tree.map_params(optimizer, lambda v: v + 1.0, optimizer.init(params))
    assert_close(optax.tree.get(state, "trace"), jax.tree.map(jnp.ones_like, params))


def test_libraries_agree_with_a_list_of_their_leaves(rule, problem):
    value_fn, params = problem
    leaves, structure = jax.tree.flatten(params)
    results = []
    for p, f in ((params, value_fn), (leaves, lambda list_: value_fn(structure.unflatten(list_)))):
        optimizer = make(rule)
        moved, _ = jax.jit(partial(step, rule, optimizer, f))(p, optimizer.init(p))
        assert jax.tree.structure(moved) == jax.tree.structure(p)
        results.append(jax.tree.leaves(moved))
    assert_close(*results)
    assert any((a != b).any() for a, b in zip(results[0], leaves, strict=True))


def test_a_step_is_differentiable(rule):
    params, _, value_fn = rosenbrock(jnp.float64)

    def value_after(params):
        optimizer = make(rule)
        return value_fn(step(rule, optimizer, value_fn, params, optimizer.init(params))[0])

    at, along = params + jnp.array([0.3, 0.2]), jnp.array([0.6, 0.8])
    slope = jax.grad(value_after)(at) @ along
    difference = (value_after(at + 1e-6 * along) - value_after(at - 1e-6 * along)) / 2e-6
    np.testing.assert_allclose(slope, difference, rtol=1e-6)


def test_penalty_before_clipping_and_adam(network):
    value_fn, params = network
    schedule = optax.cosine_decay_schedule(1e-2, 10)
    rest = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(schedule))
    optimizer = optax.chain(transforms.add_gradient_norm_penalty(0.3), rest)
    oracle = transforms.egr_value_and_grad(value_fn, 0.3)
    ours, state = params, optimizer.init(params)
    theirs, other = params, rest.init(params)
    for _ in range(3):
        updates, state = optimizer.update(jax.grad(value_fn)(ours), state, ours, value_fn=value_fn)
        ours = optax.apply_updates(ours, updates)
        updates, other = rest.update(oracle(theirs)[1], other, theirs)
        theirs = optax.apply_updates(theirs, updates)
    assert_close(ours, theirs)


@pytest.mark.parametrize(
    "decay",
    [
        transforms.metric_decay(0.1),
        transforms.selective_decay(0.1, 0.3),
        transforms.decay_until(0.1, 5),
        transforms.decay_until_then_selective(0.1, 0, 0.3),
    ],
)
def test_decays_behind_adam_are_decoupled(network, decay):
    value_fn, params = network
    gradient = jax.grad(value_fn)(params)
    adam = optax.adam(1e-2)
    optimizer = optax.chain(adam, decay)
    updates, _ = optimizer.update(gradient, optimizer.init(params), params, value_fn=value_fn)
    plain, _ = adam.update(gradient, adam.init(params), params)
    alone, _ = decay.update(
        jax.tree.map(jnp.zeros_like, params), decay.init(params), params, value_fn=value_fn
    )
    assert_close(updates, jax.tree.map(jnp.add, plain, alone))


@pytest.mark.parametrize("aggregator", [transforms.winsorize(20), transforms.median_of_means(3)])
def test_aggregators_before_clipping_and_adam(network, aggregator):
    value_fn, params = network
    each = gradients(RULES["winsorized_sgd"], value_fn, params)
    rest = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(1e-2))
    optimizer = optax.chain(aggregator, rest)
    updates, _ = optimizer.update(each, optimizer.init(params), params)
    robust, _ = aggregator.update(each, aggregator.init(params))
    expected, _ = rest.update(robust, rest.init(params), params)
    assert_close(updates, expected)
