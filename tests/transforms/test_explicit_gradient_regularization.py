import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState
from jax.flatten_util import ravel_pytree

from igr.transforms import add_gradient_norm_penalty, egr, egr_value_and_grad


def penalized_loss(value_fn, mu, mask=None):
    """E + mu |grad E|^2 over the masked leaves, written by the definition."""

    def loss(params):
        gradient = jax.grad(value_fn)(params)
        if mask is not None:
            gradient = jax.tree.map(lambda m, g: g if m else jnp.zeros_like(g), mask, gradient)
        return value_fn(params) + mu * sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient))

    return loss


def assert_same(actual, desired, rtol=1e-12):
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    for a, d in zip(jax.tree.leaves(actual), jax.tree.leaves(desired), strict=True):
        assert a.dtype == d.dtype
        np.testing.assert_allclose(a, d, rtol=rtol, atol=rtol * float(np.max(np.abs(d)) + 1e-3))


def descend(optimizer, value_fn, params, steps=5):
    @jax.jit
    def step(params, state):
        gradient = jax.grad(value_fn)(params)
        updates, state = optimizer.update(gradient, state, params, value_fn=value_fn)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params


def descend_loss(loss, optimizer, params, steps=5):
    step = jax.jit(lambda p, s: optimizer.update(jax.grad(loss)(p), s, p))
    state = optimizer.init(params)
    for _ in range(steps):
        updates, state = step(params, state)
        params = optax.apply_updates(params, updates)
    return params


def test_update_and_oracle_are_the_gradient_of_the_penalized_loss(problem):
    value_fn, params = problem

    @jax.jit
    def run(mu, params):
        rule = add_gradient_norm_penalty(mu)
        updates, _ = rule.update(
            jax.grad(value_fn)(params), rule.init(params), params, value_fn=value_fn
        )
        oracle = egr_value_and_grad(value_fn, mu)(params)
        return updates, oracle, jax.value_and_grad(penalized_loss(value_fn, mu))(params)

    for mu in (0.7, -0.2):
        updates, (value, gradient), (expected_value, expected) = run(mu, params)
        assert_same(updates, expected)
        assert_same(gradient, expected)
        np.testing.assert_allclose(value, expected_value, rtol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"momentum": 0.8}, marks=pytest.mark.slow),
        {"momentum": 0.8, "nesterov": True},
    ],
    ids=str,
)
def test_egr_descends_the_penalized_loss(network, options):
    value_fn, params = network
    ours = descend(egr(0.05, 0.3, **options), value_fn, params)
    theirs = descend_loss(penalized_loss(value_fn, 0.3), optax.sgd(0.05, **options), params)
    assert_same(ours, theirs)


def test_against_the_dense_hessian(network, dense):
    value_fn, params = network
    _, hessian = dense
    rule = egr(0.1, 0.4)

    @jax.jit
    def updated(params):
        gradient = jax.grad(value_fn)(params)
        updates, _ = rule.update(gradient, rule.init(params), params, value_fn=value_fn)
        return ravel_pytree(gradient)[0], ravel_pytree(updates)[0]

    g, updates = map(np.asarray, updated(params))
    np.testing.assert_allclose(updates, -0.1 * (g + 2 * 0.4 * hessian @ g), rtol=1e-10, atol=1e-13)


def test_gradient_comes_from_the_loss_and_not_from_the_updates(network):
    value_fn, params = network
    rule = add_gradient_norm_penalty(0.3)
    arbitrary = jax.tree.map(lambda p: jnp.full_like(p, 7.0), params)
    updates, _ = rule.update(arbitrary, rule.init(params), params, value_fn=value_fn)
    expected = jax.jit(jax.grad(penalized_loss(value_fn, 0.3)))(params)
    g = jax.grad(value_fn)(params)
    assert_same(updates, jax.tree.map(lambda e, g: 7.0 + e - g, expected, g))


def weights_only(params):
    return jax.tree.map(lambda p: p.ndim > 1, params)


@pytest.mark.parametrize("mask", [weights_only, {"first": True, "last": [False]}])
def test_mask_chooses_the_terms_of_the_penalty(network, mask):
    value_fn, params = network
    full = mask(params) if callable(mask) else {"first": {"w": True, "b": True}, "last": [False]}
    rule = add_gradient_norm_penalty(0.3, mask)
    updates, _ = rule.update(
        jax.grad(value_fn)(params), rule.init(params), params, value_fn=value_fn
    )
    expected = jax.jit(jax.value_and_grad(penalized_loss(value_fn, 0.3, full)))(params)
    assert_same(updates, expected[1])
    value, grad = egr_value_and_grad(value_fn, 0.3, mask)(params)
    assert_same(grad, updates)
    np.testing.assert_allclose(value, expected[0], rtol=1e-13)


def test_schedule_is_read_at_the_step(network):
    value_fn, params = network
    mus = [0.0, 0.1, 0.2, 0.3]
    ours = descend(egr(0.05, lambda count: 0.1 * count), value_fn, params, steps=4)
    theirs = params
    gradient_fn = jax.jit(lambda p, mu: jax.grad(penalized_loss(value_fn, mu))(p))
    for mu in mus:
        theirs = jax.tree.map(lambda p, g: p - 0.05 * g, theirs, gradient_fn(theirs, mu))
    assert_same(ours, theirs)


def test_oracle_arguments_auxiliary_output_and_plain_value(network):
    value_fn, params = network

    def with_data(p, scale, *, shift):
        return scale * value_fn(p) + shift, {"shift": shift}

    oracle = egr_value_and_grad(with_data, lambda count: 0.1 * count, has_aux=True, value="plain")
    (value, aux), grad = jax.jit(oracle)(params, 2.0, shift=jnp.array(5.0), count=3)
    np.testing.assert_allclose(value, 2.0 * value_fn(params) + 5.0, rtol=1e-13)
    assert aux["shift"] == 5.0
    assert_same(grad, jax.jit(jax.grad(penalized_loss(lambda p: 2.0 * value_fn(p), 0.3)))(params))


def test_oracle_with_a_plain_optimizer_takes_the_steps_of_egr(network):
    value_fn, params = network
    oracle, sgd = jax.jit(egr_value_and_grad(value_fn, 0.3)), optax.sgd(0.05, 0.9)
    theirs, state = params, sgd.init(params)
    for _ in range(5):
        updates, state = sgd.update(oracle(theirs)[1], state)
        theirs = optax.apply_updates(theirs, updates)
    assert_same(descend(egr(0.05, 0.3, momentum=0.9), value_fn, params), theirs)


def test_traced_mu_and_gradient_through_the_rule(network):
    value_fn, params = network

    def value_after_step(mu):
        rule = egr(0.05, mu)
        updates, _ = rule.update(
            jax.grad(value_fn)(params), rule.init(params), params, value_fn=value_fn
        )
        return value_fn(optax.apply_updates(params, updates))

    slope = jax.jit(jax.grad(value_after_step))(0.3)
    after = jax.jit(value_after_step)
    difference = (after(0.3 + 1e-5) - after(0.3 - 1e-5)) / 2e-5
    np.testing.assert_allclose(slope, difference, rtol=1e-7)


@pytest.mark.slow
def test_leaves_that_do_not_train_pass_through():
    model = eqx.nn.MLP(2, 1, 3, 1, activation=jnp.tanh, key=jax.random.key(0))
    tree = {"model": model, "count": jnp.array([3, 4]), "key": jax.random.key(1), "name": "mlp"}

    def value_fn(t):
        scale = t["count"].sum() * (1.0 if t["name"] == "mlp" else 0.0)
        return scale * jnp.sum(jax.vmap(t["model"])(jnp.ones((4, 2))) ** 2)

    params, static = eqx.partition(tree, eqx.is_inexact_array)
    penalized = penalized_loss(lambda p: value_fn(eqx.combine(p, static)), 0.1)
    expected = jax.jit(jax.grad(penalized))(params)
    gradient = eqx.filter_jit(eqx.filter_grad(value_fn))(tree)  # None where nothing trains
    rule = egr(0.1, 0.1)
    update = eqx.filter_jit(lambda *args: rule.update(*args, value_fn=value_fn))
    updates, _ = update(gradient, rule.init(params), tree)
    moved = eqx.apply_updates(tree, updates)
    assert moved["count"].tolist() == [3, 4]
    assert moved["name"] == "mlp"
    assert_same(updates, jax.tree.map(lambda g: -0.1 * g, expected))
    _, grad = eqx.filter_jit(egr_value_and_grad(value_fn, 0.1))(tree)
    assert grad["name"] is None
    assert grad["key"] is None
    assert grad["count"].tolist() == [0, 0]
    assert grad["count"].dtype == tree["count"].dtype
    assert_same(eqx.filter(grad, eqx.is_inexact_array), expected)


@pytest.mark.slow
def test_bfloat16_leaves_keep_their_dtype_beside_float32(network):
    value_fn, params = network
    params = {
        "first": jax.tree.map(lambda p: p.astype(jnp.bfloat16), params["first"]),
        "last": [params["last"][0].astype(jnp.float32)],
    }
    wide = jax.tree.map(lambda p: p.astype(float), params)
    expected = jax.jit(jax.grad(penalized_loss(value_fn, 0.3)))(wide)
    for mu in (0.3, jnp.array(0.3, jnp.float64), lambda count: 0.3 + 0.0 * count):
        rule = add_gradient_norm_penalty(mu)
        updates, state = rule.update(
            jax.grad(value_fn)(params), rule.init(params), params, value_fn=value_fn
        )
        assert [u.dtype for u in jax.tree.leaves(updates)] == [
            p.dtype for p in jax.tree.leaves(params)
        ]
        assert state.count == 1
        for u, e in zip(
            jax.tree.leaves(updates),
            jax.tree.leaves(expected),
            strict=True,
        ):
            np.testing.assert_allclose(u.astype(float), e, atol=0.03 * float(np.max(np.abs(e))))


def update(rule, params, value_fn=None, updates=None):
    updates = params if updates is None else updates
    return rule.update(updates, rule.init(params), params, value_fn=value_fn)


@pytest.mark.parametrize("mu", [np.nan, np.inf, "1", None, [1.0], 1j, jnp.array(jnp.nan), True])
def test_mu_that_is_not_a_finite_number(mu):
    with pytest.raises((TypeError, ValueError), match=r"mu must be (finite|a number); got"):
        egr(0.1, mu)
    with pytest.raises((TypeError, ValueError), match=r"mu must be (finite|a number)"):
        egr_value_and_grad(lambda p: p, mu)


@pytest.mark.parametrize("learning_rate", [0.0, -1.0, np.inf])
def test_learning_rate_that_is_not_positive(learning_rate):
    with pytest.raises(ValueError, match="learning_rate must be positive and finite"):
        egr(learning_rate, 0.1)


def test_missing_arguments():
    params = jnp.ones(2)
    rule = egr(0.1, 0.1)
    with pytest.raises(ValueError, match=r"needs the loss.*value_fn=.*egr_value_and_grad"):
        rule.update(params, rule.init(params), params)
    with pytest.raises(ValueError, match=r"needs the parameters: call update\(updates"):
        rule.update(params, rule.init(params), value_fn=jnp.sum)
    with pytest.raises(ValueError, match="value_fn must be a function params -> scalar; got float"):
        update(rule, params, 3.0)
    with pytest.raises(ValueError, match="mu is a schedule, so count="):
        egr_value_and_grad(jnp.sum, optax.constant_schedule(0.1))(params)
    with pytest.raises(ValueError, match=r"must be \"penalized\" or \"plain\"; got 'both'"):
        egr_value_and_grad(jnp.sum, 0.1, value="both")


def test_loss_that_is_not_a_scalar():
    params = jnp.ones(2)
    with pytest.raises(ValueError, match=r"value_fn must return one real.*shape \(2,\), float64"):
        update(egr(0.1, 0.1), params, lambda p: p)
    with pytest.raises(ValueError, match="value_fn must return one real"):
        update(egr(0.1, 0.1), params, lambda p: (jnp.sum(p), "aux"))


def test_trees_that_do_not_fit():
    params = {"w": jnp.ones(2)}

    def loss(p):
        return jnp.sum(p["w"])

    rule = egr(0.1, 0.1)
    with pytest.raises(ValueError, match="updates and params of one structure"):
        update(rule, params, loss, {"v": jnp.ones(2)})
    with pytest.raises(ValueError, match=r"shapes of params; got \(5, 2\).*aggregated"):
        update(rule, params, loss, {"w": jnp.ones((5, 2))})
    with pytest.raises(ValueError, match="at least one floating array; got leaves of"):
        update(rule, {"w": jnp.arange(2)}, loss)
    with pytest.raises(
        ValueError, match=r"complex leaves are not supported: params\['w'\] is complex128"
    ):
        update(rule, {"w": jnp.ones(2) * 1j}, loss)


def test_masked_nodes_are_refused_at_init_and_on_update():
    params = {"w": jnp.ones(2), "b": jnp.ones(1)}
    rule = optax.masked(add_gradient_norm_penalty(0.1), {"w": True, "b": False})
    with pytest.raises(ValueError, match=r"MaskedNodes.*mask= of their own"):
        rule.init(params)
    inner = add_gradient_norm_penalty(0.1)
    masked = {"w": jnp.ones(2), "b": optax.MaskedNode()}
    with pytest.raises(ValueError, match="MaskedNodes"):
        inner.update(masked, inner.init(params), masked, value_fn=lambda p: jnp.sum(p["w"]))


def test_masks_that_do_not_fit():
    params = {"w": jnp.ones(2), "b": jnp.ones(1)}

    def loss(p):
        return jnp.sum(p["w"] ** 2) + jnp.sum(p["b"] ** 2)

    with pytest.raises(ValueError, match="mask must be a pytree with the structure of params"):
        update(add_gradient_norm_penalty(0.1, {"v": True}), params, loss)
    with pytest.raises(ValueError, match="mask must hold Python bools"):
        update(add_gradient_norm_penalty(0.1, {"w": jnp.array(1.0), "b": True}), params, loss)
    with pytest.raises(ValueError, match="a single bool for the whole tree"):
        update(add_gradient_norm_penalty(0.1, False), params, loss)


def test_callable_mask_under_inject_hyperparams_is_declared_or_refused(network):
    value_fn, params = network
    hyper = {"learning_rate": 0.05, "mu": 0.3, "mask": weights_only}
    undeclared = optax.inject_hyperparams(egr)(**hyper)
    with pytest.raises(ValueError, match=r"static_args=\('mask',\)"):
        descend(undeclared, value_fn, params)
    declared = optax.inject_hyperparams(egr, static_args=("mask",))(**hyper)
    assert_same(
        descend(declared, value_fn, params),
        descend(egr(0.05, 0.3, None, False, weights_only), value_fn, params),
    )


def test_accumulation_with_the_penalty_before_it(network):
    value_fn, params = network
    losses = [lambda p: value_fn(p), lambda p: value_fn(jax.tree.map(jnp.sin, p))]
    optimizer = optax.chain(
        add_gradient_norm_penalty(0.3),
        optax.MultiSteps(
            optax.sgd(0.05), 2, accumulator_dtype=jnp.float64
        ).gradient_transformation(),
    )

    @jax.jit
    def both(params):
        state, ours = optimizer.init(params), params
        for loss in losses:
            updates, state = optimizer.update(jax.grad(loss)(ours), state, ours, value_fn=loss)
            ours = optax.apply_updates(ours, updates)
        gradients = [jax.grad(penalized_loss(loss, 0.3))(params) for loss in losses]
        return ours, jax.tree.map(lambda p, a, b: p - 0.05 * (a + b) / 2, params, *gradients)

    assert_same(*both(params))


@pytest.mark.slow
def test_in_the_training_loops_of_flax():
    """nnx.Optimizer passes the loss on; TrainState.apply_gradients cannot and takes the oracle."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)))
    model = nnx.Linear(3, 2, param_dtype=float, rngs=nnx.Rngs(0))
    graph, start = nnx.split(model)
    start = jax.tree.map(jnp.copy, start)  # the variables of the model itself are about to change

    def value_fn(params):
        return jnp.mean(jnp.tanh(nnx.merge(graph, params)(x)) ** 2)

    expected = jax.tree.leaves(descend(egr(0.1, 0.2), value_fn, start, steps=2))
    optimizer = nnx.Optimizer(model, egr(0.1, 0.2), wrt=nnx.Param)
    train = TrainState.create(apply_fn=None, params=start, tx=optax.sgd(0.1))
    refused = TrainState.create(apply_fn=None, params=start, tx=egr(0.1, 0.2))
    for _ in range(2):
        optimizer.update(model, jax.grad(value_fn)(nnx.state(model)), value_fn=value_fn)
        train = train.apply_gradients(grads=egr_value_and_grad(value_fn, 0.2)(train.params)[1])
    for params in (nnx.state(model), train.params):
        for p, e in zip(jax.tree.leaves(params), expected, strict=True):
            np.testing.assert_allclose(p, e, rtol=1e-12)
    with pytest.raises(ValueError, match=r"TrainState.apply_gradients\), use igr"):
        refused.apply_gradients(grads=jax.grad(value_fn)(start))
