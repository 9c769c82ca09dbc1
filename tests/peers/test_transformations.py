"""What every gradient transformation owes its users: one contract over all rules of igr."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from igr import transforms

pytestmark = pytest.mark.slow
GOAL = {"w": np.array([[1.0, -1.0, 0.5], [2.0, 0.0, -0.5]]), "b": np.array([0.3, -0.2, 1.0])}
OFFSETS = np.array([-1.0, -0.5, -0.25, 0.25, 0.5, 1.0])

WITH_LOSS = {
    "egr": transforms.egr(0.05, 0.01),
    "egr with momentum": transforms.egr(0.05, 0.01, 0.9, nesterov=True),
    "add_gradient_norm_penalty": optax.chain(
        transforms.add_gradient_norm_penalty(optax.linear_schedule(0.1, 0, 4)), optax.sgd(0.05)
    ),
    **{
        f"metric_sgd {metric}": transforms.metric_sgd(0.05, 1e-3, metric)
        for metric in (
            "hessian", "absolute_hessian", "absolute_distance", "absolute_shrinkage",
            "absolute_product",
        )
    },
    "selective_l2_sgd": transforms.selective_l2_sgd(0.05, 1e-3, 0.5),
    "l2_stopped_sgd": transforms.l2_stopped_sgd(0.05, 1e-3, 3),
    "l2_stopped_selective_sgd": transforms.l2_stopped_selective_sgd(0.05, 1e-3, 2, 0.5),
    "drift_adjusted": transforms.drift_adjusted(max_learning_rate=0.1),
}  # fmt: skip
OF_EXAMPLES = {
    "winsorized_sgd": transforms.winsorized_sgd(0.05, 20),
    "median": transforms.winsorized_sgd(0.05, 50),
    "mean": transforms.winsorized_sgd(0.05, 0),
    "median_of_means_sgd": transforms.median_of_means_sgd(0.05, 3),
}
RULES = WITH_LOSS | OF_EXAMPLES


def start(dtype=jnp.float64):
    return jax.tree.map(lambda g: jnp.zeros(g.shape, dtype), GOAL)


def value_fn(params):
    terms = jax.tree.map(lambda p, g: jnp.sum((p - jnp.asarray(g, p.dtype)) ** 2), params, GOAL)
    return sum(term.astype(float) for term in jax.tree.leaves(terms))


def gradients(name, params):
    gradient = jax.grad(value_fn)(params)
    if name in WITH_LOSS:
        return gradient
    return jax.tree.map(
        lambda g: g + jnp.asarray(OFFSETS, g.dtype).reshape(-1, *[1] * g.ndim), gradient
    )


def step(name, params, state, rule=None):
    rule = RULES[name] if rule is None else rule
    updates, state = rule.update(gradients(name, params), state, params, value_fn=value_fn)
    return optax.apply_updates(params, updates), state


def types(tree):
    return jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), tree)


def assert_equal(found, expected, rtol=1e-12):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol), found, expected
    )


@pytest.mark.parametrize("name", RULES)
def test_it_reaches_the_goal_in_a_scan_and_its_state_keeps_its_type(name):
    params = start()
    carry = params, RULES[name].init(params)
    run = jax.jit(lambda c: jax.lax.scan(lambda c, _: (step(name, *c), None), c, length=400)[0])
    params, state = run(carry)
    for found, goal in zip(jax.tree.leaves(params), jax.tree.leaves(GOAL), strict=True):
        np.testing.assert_allclose(found, goal, atol=5e-2)
    assert types(state) == types(carry[1])


@pytest.mark.parametrize("name", RULES)
def test_jit_and_eager_agree(name):
    params = jax.tree.map(lambda g: jnp.asarray(g) / 3, GOAL)
    state = RULES[name].init(params)
    assert_equal(jax.jit(lambda p, s: step(name, p, s))(params, state), step(name, params, state))
    assert_equal(jax.jit(RULES[name].init)(params), state)


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("name", RULES)
def test_dtypes(name, dtype):
    params = jax.tree.map(lambda g: jnp.asarray(g, dtype) / 3, GOAL)
    state = RULES[name].init(params)
    exact = step(name, jax.tree.map(lambda p: p.astype(float), params), RULES[name].init(start()))
    moved, after = jax.jit(lambda p, s: step(name, p, s))(params, state)
    assert {leaf.dtype for leaf in jax.tree.leaves(moved)} == {jnp.dtype(dtype)}
    assert types(after) == types(state)
    near = 8 * float(jnp.finfo(dtype).eps)
    for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(exact[0]), strict=True):
        np.testing.assert_allclose(np.asarray(a, float), b, rtol=near, atol=near)


@pytest.mark.parametrize("name", RULES)
def test_leaves_without_entries_none_and_integers_pass(name):
    params = start() | {"empty": jnp.zeros((0, 3)), "none": None}
    goal = GOAL | {"empty": np.zeros((0, 3)), "none": None}
    loss = lambda p: sum(jnp.sum((p[k] - goal[k]) ** 2) for k in ("w", "b", "empty"))
    gradient = jax.grad(loss)(params)
    if name in OF_EXAMPLES:
        gradient = jax.tree.map(
            lambda g: g + jnp.asarray(OFFSETS).reshape(-1, *[1] * g.ndim), gradient
        )
    updates, _ = RULES[name].update(gradient, RULES[name].init(params), params, value_fn=loss)
    assert updates["empty"].shape == (0, 3)
    assert updates["none"] is None
    plain, _ = step(name, start(), RULES[name].init(start()))
    moved = optax.apply_updates(params, updates)
    assert_equal({k: moved[k] for k in GOAL}, plain)


@pytest.mark.parametrize("name", RULES)
def test_complex_leaves_are_refused_by_name(name):
    params = start() | {"z": jnp.ones(2, complex)}
    gradient = jax.tree.map(jnp.ones_like, params)
    if name in OF_EXAMPLES:
        gradient = jax.tree.map(lambda g: jnp.stack([g] * 6), gradient)
    with pytest.raises(ValueError, match=r"complex leaves are not supported: .*'z'"):
        RULES[name].update(
            gradient, RULES[name].init(params), params, value_fn=lambda p: value_fn(p)
        )


@pytest.mark.parametrize("name", RULES)
def test_a_state_survives_pickling_and_flattening(name):
    params = start()
    _, state = step(name, params, RULES[name].init(params))
    again = pickle.loads(pickle.dumps(jax.tree.map(np.asarray, state)))
    assert_equal(step(name, params, again), step(name, params, state))
    leaves, structure = jax.tree.flatten(state)
    assert_equal(structure.unflatten(leaves), state)


@pytest.mark.parametrize("name", RULES)
def test_other_arguments_are_tolerated_and_none_is_needed_twice(name):
    params = start()
    state = RULES[name].init(params)
    found = RULES[name].update(
        gradients(name, params), state, params, value_fn=value_fn, value=1.0, loss=None, step=3
    )
    assert_equal(optax.apply_updates(params, found[0]), step(name, params, state)[0])
    if name in WITH_LOSS and name != "l2_stopped_sgd":
        with pytest.raises((ValueError, TypeError), match="value_fn"):
            RULES[name].update(gradients(name, params), state, params)
    with pytest.raises((ValueError, TypeError), match=r"params|updates"):
        RULES[name].update(None, state, None, value_fn=value_fn)


@pytest.mark.parametrize("name", RULES)
def test_donated_buffers(name):
    params = start()
    run = jax.jit(lambda p, s: step(name, p, s), donate_argnums=(0, 1))
    expected = step(name, params, RULES[name].init(params))
    assert_equal(run(jax.tree.map(jnp.copy, params), RULES[name].init(params)), expected)
