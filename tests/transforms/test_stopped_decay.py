import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from igr.transforms import (
    decay_until,
    decay_until_then_selective,
    l2_stopped_selective_sgd,
    l2_stopped_sgd,
    selective_decay,
    stopped_selective_value_and_grad,
)


def loss(w):
    return (100 * w[0] ** 2 + w[1] ** 2) / 2  # H theta = (100 w0, w1)


THETA = jnp.array([1.0, 2.0])


def taken_off(rule, steps):
    state, seen = rule.init(THETA), []
    for _ in range(steps):
        updates, state = rule.update(0 * THETA, state, THETA, value_fn=loss)
        seen.append((-updates).tolist())
    return seen


def test_decays_the_first_steps_only():
    assert taken_off(decay_until(0.5, 2), 4) == [[0.5, 1.0]] * 2 + [[0.0, 0.0]] * 2
    assert taken_off(decay_until(0.5, 0), 1) == [[0.0, 0.0]]


def test_then_selective():
    rule = decay_until_then_selective(0.5, 2, threshold=0.1)
    assert taken_off(rule, 4) == [[0.5, 1.0]] * 2 + [[0.0, 1.0]] * 2
    rule = decay_until_then_selective(0.5, 1, 0.1, selective_weight_decay=0.25)
    assert taken_off(rule, 2) == [[0.5, 1.0], [0.0, 0.5]]


def test_after_the_switch_it_is_selective_decay(network):
    value_fn, params = network
    layers = {"first": 0, "last": 1}
    ours = decay_until_then_selective(0.3, 0, 0.3, layers)
    theirs = selective_decay(0.3, 0.3, layers)

    @jax.jit
    def updated(params):
        return [
            ravel_pytree(rule.update(params, rule.init(params), params, value_fn=value_fn)[0])[0]
            for rule in (ours, theirs)
        ]

    np.testing.assert_allclose(*updated(params), rtol=1e-14)


def test_schedules_and_masks():
    rate = optax.linear_schedule(0.0, 1.0, 4)
    assert taken_off(decay_until(rate, 3), 4) == [[0, 0], [0.25, 0.5], [0.5, 1.0], [0, 0]]
    params = {"w": THETA, "b": jnp.array(3.0)}
    rule = decay_until(0.5, 1, {"w": True, "b": False})
    updates, _ = rule.update(jax.tree.map(jnp.zeros_like, params), rule.init(params), params)
    assert updates["w"].tolist() == [-0.5, -1.0]
    assert updates["b"] == 0.0


def test_rates_are_not_multiplied_by_the_learning_rate():
    gradient = jax.grad(loss)(THETA)
    for optimizer in (l2_stopped_sgd(0.01, 0.5, 1), l2_stopped_selective_sgd(0.01, 0.5, 1, 0.1)):
        updates, _ = optimizer.update(gradient, optimizer.init(THETA), THETA, value_fn=loss)
        np.testing.assert_allclose(updates, -0.01 * gradient - 0.5 * THETA, rtol=1e-14)


def test_the_hessian_waits_for_its_turn():
    rule = decay_until_then_selective(0.5, 1, 0.1)
    jaxpr = jax.make_jaxpr(
        lambda state: rule.update(THETA, state, THETA, value_fn=lambda w: jnp.sum(jnp.exp(w)))
    )(rule.init(THETA))
    outside = [eqn.primitive.name for eqn in jaxpr.eqns]
    assert "cond" in outside
    assert "exp" not in outside


def test_oracle_takes_the_steps_of_the_optimizer(network):
    value_fn, params = network
    optimizer = l2_stopped_selective_sgd(0.1, 0.02, 2, 0.3, selective_weight_decay=0.03)
    oracle = stopped_selective_value_and_grad(value_fn, 0.2, 2, 0.3, selective_rate=0.3)
    ours, theirs, state = params, params, optimizer.init(params)

    @jax.jit
    def step(ours, state, theirs, count):
        updates, state = optimizer.update(jax.grad(value_fn)(ours), state, ours, value_fn=value_fn)
        value, grad = oracle(theirs, count=count)
        after = jax.tree.map(lambda p, g: p - 0.1 * g, theirs, grad)
        return optax.apply_updates(ours, updates), state, after, (value, value_fn(theirs))

    for count in range(4):
        ours, state, theirs, (value, expected) = step(ours, state, theirs, count)
        np.testing.assert_allclose(value, expected, rtol=1e-14)
    np.testing.assert_allclose(ravel_pytree(ours)[0], ravel_pytree(theirs)[0], rtol=1e-12)
    with pytest.raises(ValueError, match="needs count=, the number of the step"):
        oracle(params)


@pytest.mark.parametrize("step", [-1, 1.5, None, True, jnp.array(1.0), jnp.array([1])])
def test_step_that_is_no_number_of_steps(step):
    with pytest.raises((TypeError, ValueError), match=r"step must be (at least 0|an integer); got"):
        decay_until(0.1, step)
    with pytest.raises((TypeError, ValueError), match=r"step must be (at least 0|an integer); got"):
        decay_until_then_selective(0.1, step, 0.1)


def test_inside_masked_and_partition_it_decays_what_is_left():
    theta = {"w": jnp.array([1.0, 2.0]), "b": jnp.array([4.0])}
    gradient = {"w": jnp.array([1.0, 1.0]), "b": jnp.array([1.0])}
    one = optax.masked(l2_stopped_sgd(0.1, 0.5, 1), {"w": True, "b": False})
    update, state = jax.jit(one.update)(gradient, one.init(theta), theta)
    np.testing.assert_allclose(update["w"], [-0.6, -1.1])
    np.testing.assert_allclose(update["b"], [1.0])  # masked passes it on
    update, _ = one.update(gradient, state, theta)
    np.testing.assert_allclose(update["w"], [-0.1, -0.1])
    rules = {"decayed": decay_until(0.5, 1), "plain": optax.scale(-0.1), "empty": decay_until(1, 1)}
    two = optax.partition(rules, {"w": "decayed", "b": "plain"})  # "empty" has no leaf
    update, _ = two.update(gradient, two.init(theta), theta)
    np.testing.assert_allclose(update["w"], [0.5, 0.0])
    np.testing.assert_allclose(update["b"], [-0.1])
    chosen = decay_until(0.5, 1, mask=lambda p: jax.tree.map(lambda x: x.size == 2, p))
    three = optax.masked(chosen, {"w": True, "b": False})
    update, _ = three.update(gradient, three.init(theta), theta)
    np.testing.assert_allclose(update["w"], [0.5, 0.0])


def test_bad_input():
    with pytest.raises(ValueError, match="weight_decay must be finite and not negative"):
        decay_until(-0.1, 1)
    with pytest.raises(ValueError, match="selective_weight_decay must be finite"):
        decay_until_then_selective(0.1, 1, 0.1, selective_weight_decay=-0.1)
    with pytest.raises(ValueError, match="threshold must be finite and not negative"):
        decay_until_then_selective(0.1, 1, -0.1)
    with pytest.raises(ValueError, match="learning_rate must be positive and finite"):
        l2_stopped_sgd(0.0, 0.1, 1)
    with pytest.raises(ValueError, match="learning_rate must be positive and finite"):
        l2_stopped_selective_sgd(0.0, 0.1, 1, 0.1)
    rule = decay_until(0.1, 1)
    with pytest.raises(ValueError, match="decay_until needs the parameters"):
        rule.update(THETA, rule.init(THETA))
    with pytest.raises(ValueError, match="decay_until must get params with at least one floating"):
        rule.update(jnp.arange(2), rule.init(jnp.arange(2)), jnp.arange(2))
    rule = decay_until_then_selective(0.1, 1, 0.1)
    with pytest.raises(ValueError, match="decay_until_then_selective needs the whole tree"):
        rule.init(optax.MaskedNode())
    with pytest.raises(ValueError, match=r"value_fn=.*stopped_selective_value_and_grad"):
        rule.update(THETA, rule.init(THETA), THETA)


def test_inside_an_accumulation_it_counts_the_steps_that_are_made():
    optimizer = optax.MultiSteps(l2_stopped_sgd(0.1, 0.5, 1), 2)
    state, theta, seen = optimizer.init(THETA), THETA, []
    for _ in range(4):
        updates, state = optimizer.update(jnp.zeros(2), state, theta)
        theta = optax.apply_updates(theta, updates)
        seen.append(theta.tolist())
    assert seen == [[1.0, 2.0], [0.5, 1.0], [0.5, 1.0], [0.5, 1.0]]
