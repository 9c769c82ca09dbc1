"""What optax's own tests demand of an optimizer, and a user of every rule."""

from collections.abc import Callable
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


def test_converges_on_the_targets_of_optax_in_one_scan(rule):
    """Its three targets side by side: a sum of losses of separate parameters."""
    params, goal, value_fns = zip(parabola(), rosenbrock(), mixed(), strict=True)
    optimizer = make(rule)
    state = optax.tree.map_params(optimizer, lambda v: v, optimizer.init(params))

    def value_fn(params):
        return sum(fn(p) for fn, p in zip(value_fns, params, strict=True))

    @jax.jit
    def run(carry):
        return jax.lax.scan(
            lambda c, _: (step(rule, optimizer, value_fn, *c), None), carry, length=15_000
        )[0]

    params, state = run((params, state))
    for p, g in zip(jax.tree.leaves(params), jax.tree.leaves(goal), strict=True):
        np.testing.assert_allclose(p, g, rtol=3e-2, atol=3e-2)


def test_dtypes_are_stable_unknown_arguments_tolerated_and_nothing_compiled_twice(rule):
    dtypes = [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64]
    params, _, value_fns = zip(*(mixed(dtype) for dtype in dtypes), strict=True)
    optimizer, traces = make(rule), []

    def value_fn(params):
        return sum(fn(p).astype(float) for fn, p in zip(value_fns, params, strict=True))

    @jax.jit
    def either(params, state, first):
        traces.append(1)
        updates, new = optimizer.update(
            gradients(rule, value_fn, params), state, params, value_fn=value_fn, unknown=first
        )
        return jax.lax.cond(first, lambda: (updates, new), lambda: (params, state))

    state = optimizer.init(params)
    for first in (True, False, True):
        updates, state = either(params, state, first)
        for dtype, part in zip(dtypes, updates, strict=True):
            assert {u.dtype for u in jax.tree.leaves(part)} == {jnp.dtype(dtype)}
    assert len(traces) == 1


# From here on all rules go into one program: what the compiler does is most of the time.


@pytest.mark.slow
def test_inject_hyperparams(network):
    value_fn, params = network

    @jax.jit
    def run(params):
        found = {}
        for name, rule in RULES.items():
            plain = make(rule)
            injected = optax.inject_hyperparams(rule.factory, static_args=rule.static)(
                **rule.options
            )
            ours, state = params, injected.init(params)
            theirs, other = params, plain.init(params)
            for _ in range(2):
                ours, state = step(rule, injected, value_fn, ours, state)
                theirs, other = step(rule, plain, value_fn, theirs, other)
            state.hyperparams["learning_rate"] = jnp.array(0.0)
            frozen, _ = step(rule, injected, value_fn, ours, state)
            found[name] = (ours, state.inner_state), (theirs, other), frozen
        return found

    for name, (ours, theirs, frozen) in run(params).items():
        assert_close(ours, theirs)
        rule = RULES[name]
        if rule.factory is transforms.egr or rule.per_example:  # the decays are not scaled by it
            assert_close(frozen, ours[0])


@pytest.mark.slow
def test_schedules_equal_to_constants(network):
    value_fn, params = network

    @jax.jit
    def run(params):
        found = {}
        for name, rule in RULES.items():
            names = ["learning_rate"] + ([rule.scheduled] if rule.scheduled else [])
            schedules = {n: optax.constant_schedule(rule.options[n]) for n in names}
            found[name] = []
            for optimizer in (make(rule), make(rule, **schedules)):
                p, state = params, optimizer.init(params)
                for _ in range(2):
                    p, state = step(rule, optimizer, value_fn, p, state)
                found[name].append(p)
        return found

    for pair in run(params).values():
        assert_close(*pair)


@pytest.mark.slow
def test_vmap_over_seeds_equals_a_loop():
    params, _, value_fn = rosenbrock(jnp.float64)
    seeds = params + jnp.array([[0.1, 0.2], [-0.3, 0.5], [0.0, -0.1]])

    def two_steps(params):
        found = {}
        for name, rule in RULES.items():
            optimizer = make(rule)
            carry = params, optimizer.init(params)
            for _ in range(2):
                carry = step(rule, optimizer, value_fn, *carry)
            found[name] = carry[0]
        return found

    one = jax.jit(two_steps)
    every = jax.jit(jax.vmap(two_steps))(seeds)
    assert_close(every, jax.tree.map(lambda *p: jnp.stack(p), *(one(s) for s in seeds)))


def test_checkpoints(network, tmp_path):
    value_fn, params = network
    optimizers = {name: make(rule, momentum=0.9) for name, rule in RULES.items()}

    @jax.jit
    def one_step(params, states):
        return {
            name: step(RULES[name], optimizer, value_fn, params, states[name])
            for name, optimizer in optimizers.items()
        }

    states = {name: optimizer.init(params) for name, optimizer in optimizers.items()}
    states = {name: state for name, (_, state) in one_step(params, states).items()}
    expected = one_step(params, states)
    blank = jax.tree.map(jnp.zeros_like, states)
    restored = flax.serialization.from_bytes(blank, flax.serialization.to_bytes(states))
    assert_close(one_step(params, restored), expected, rtol=0)
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "states", states)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "states", blank)
    assert_close(one_step(params, restored), expected, rtol=0)


def test_state_maps_over_parameters(rule, network):
    _, params = network
    optimizer = make(rule, momentum=0.9)
    state = optax.tree.map_params(optimizer, lambda v: v + 1.0, optimizer.init(params))
    assert_close(optax.tree.get(state, "trace"), jax.tree.map(jnp.ones_like, params))


def test_libraries_agree_with_a_list_of_their_leaves(problem):
    value_fn, params = problem
    leaves, structure = jax.tree.flatten(params)

    @jax.jit
    def run(params):
        found = {}
        for name, rule in RULES.items():
            optimizer = make(rule)
            moved, _ = step(rule, optimizer, value_fn, params, optimizer.init(params))
            flat = jax.tree.leaves(params)
            of_list = lambda list_: value_fn(structure.unflatten(list_))
            listed, _ = step(rule, optimizer, of_list, flat, optimizer.init(flat))
            found[name] = moved, listed
        return found

    for moved, listed in run(params).values():
        assert jax.tree.structure(moved) == structure
        assert_close(jax.tree.leaves(moved), listed)
        assert any((a != b).any() for a, b in zip(listed, leaves, strict=True))


@pytest.mark.slow
def test_a_step_is_differentiable():
    params, _, value_fn = rosenbrock(jnp.float64)

    def values_after(params):
        return {
            name: value_fn(step(rule, make(rule), value_fn, params, make(rule).init(params))[0])
            for name, rule in RULES.items()
        }

    at, along = params + jnp.array([0.3, 0.2]), jnp.array([0.6, 0.8])
    forward = jax.jit(values_after)
    slopes = jax.jit(jax.jacrev(values_after))(at)
    up, down = forward(at + 1e-6 * along), forward(at - 1e-6 * along)
    for name, slope in slopes.items():
        difference = (up[name] - down[name]) / 2e-6
        np.testing.assert_allclose(slope @ along, difference, rtol=1e-6, err_msg=name)


def test_nan_in_the_curvature_alone_shows_in_the_update():
    """w^1.5 at 0: the gradient is 0, and the Hessian times anything that vanishes there NaN."""
    params = jnp.array([0.0, 1.0])
    value_fn = lambda w: jnp.sum(w**1.5)
    assert np.isfinite(jax.grad(value_fn)(params)).all()
    rules = [
        transforms.egr(0.1, 0.1),
        transforms.selective_l2_sgd(0.1, 0.1, 0.5),
        transforms.l2_stopped_selective_sgd(0.1, 0.1, 0, 0.5),
        transforms.metric_sgd(0.1, 0.1),
        transforms.metric_decay(0.1, "absolute_hessian"),
        transforms.metric_decay(0.1, "absolute_distance"),
        transforms.metric_decay(0.1, "absolute_shrinkage"),
        transforms.metric_decay(0.1, "absolute_product"),
    ]

    @jax.jit
    def updated(params):
        gradient = jax.grad(value_fn)(params)
        return [
            rule.update(gradient, rule.init(params), params, value_fn=value_fn)[0] for rule in rules
        ]

    for updates in updated(params):
        assert np.isnan(updates[0])


def test_penalty_before_clipping_and_adam(network):
    value_fn, params = network
    schedule = optax.cosine_decay_schedule(1e-2, 10)
    rest = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(schedule))
    optimizer = optax.chain(transforms.add_gradient_norm_penalty(0.3), rest)
    oracle = transforms.egr_value_and_grad(value_fn, 0.3)

    @jax.jit
    def both(ours, state, theirs, other):
        updates, state = optimizer.update(jax.grad(value_fn)(ours), state, ours, value_fn=value_fn)
        ours = optax.apply_updates(ours, updates)
        updates, other = rest.update(oracle(theirs)[1], other, theirs)
        return ours, state, optax.apply_updates(theirs, updates), other

    carry = params, optimizer.init(params), params, rest.init(params)
    for _ in range(3):
        carry = both(*carry)
    assert_close(carry[0], carry[2])


@pytest.mark.parametrize(
    "decay",
    [
        pytest.param(transforms.metric_decay(0.1), marks=pytest.mark.slow),
        transforms.selective_decay(0.1, 0.3),
        pytest.param(transforms.decay_until(0.1, 5), marks=pytest.mark.slow),
        transforms.decay_until_then_selective(0.1, 0, 0.3),
    ],
)
def test_decays_behind_adam_are_decoupled(network, decay):
    value_fn, params = network
    adam = optax.adam(1e-2)
    optimizer = optax.chain(adam, decay)

    @jax.jit
    def updated(params):
        gradient = jax.grad(value_fn)(params)
        zero = jax.tree.map(jnp.zeros_like, params)
        return (
            optimizer.update(gradient, optimizer.init(params), params, value_fn=value_fn)[0],
            adam.update(gradient, adam.init(params), params)[0],
            decay.update(zero, decay.init(params), params, value_fn=value_fn)[0],
        )

    updates, plain, alone = updated(params)
    assert_close(updates, jax.tree.map(np.add, plain, alone))


@pytest.mark.parametrize(
    "aggregator",
    [pytest.param(transforms.winsorize(20), marks=pytest.mark.slow), transforms.median_of_means(3)],
)
def test_aggregators_before_clipping_and_adam(network, aggregator):
    value_fn, params = network
    rest = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(1e-2))
    optimizer = optax.chain(aggregator, rest)

    @jax.jit
    def updated(params):
        each = gradients(RULES["winsorized_sgd"], value_fn, params)
        robust, _ = aggregator.update(each, aggregator.init(params))
        return (
            optimizer.update(each, optimizer.init(params), params)[0],
            rest.update(robust, rest.init(params), params)[0],
        )

    assert_close(*updated(params))
