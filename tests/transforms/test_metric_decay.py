import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from igr.transforms import metric_decay, metric_sgd, metric_value_and_grad


def taken_off(rule, params, **functions):
    @jax.jit
    def updated(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return ravel_pytree(rule.update(zeros, rule.init(params), params, **functions)[0])[0]

    return -np.asarray(updated(params))


def absolute(hessian):
    eigenvalues, vectors = np.linalg.eigh(hessian)
    return vectors @ np.diag(np.abs(eigenvalues)) @ vectors.T


READINGS = {
    "hessian": lambda theta, h: h @ theta,
    "absolute_hessian": lambda theta, h: absolute(h) @ theta,
    "absolute_distance": lambda theta, h: np.sign(theta @ h @ theta) * (h @ theta),
    "absolute_shrinkage": lambda theta, h: np.sign(theta) * np.abs(h @ theta),
    "absolute_product": lambda theta, h: np.abs(h @ theta),
}


@pytest.mark.parametrize("metric", READINGS)
def test_against_the_dense_hessian(network, dense, metric):
    value_fn, params = network
    theta, hessian = dense
    assert np.linalg.eigvalsh(hessian)[0] < -1e-2  # else the readings would be one
    rule = metric_decay(0.3, metric, lanczos_steps=theta.size)
    expected = 0.3 * READINGS[metric](theta, hessian)
    np.testing.assert_allclose(
        taken_off(rule, params, value_fn=value_fn), expected, rtol=1e-8, atol=1e-10
    )


@pytest.mark.slow
def test_gauss_newton_against_the_dense_matrix(network):
    _, params = network
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.normal(size=(5, 3))), jnp.asarray(rng.integers(0, 2, size=5))
    theta, unravel = ravel_pytree(params)

    def apply_fn(p):
        return {"logits": jnp.tanh(x @ p["first"]["w"] + p["first"]["b"]) @ p["last"][0]}

    def output_loss_fn(outputs):
        return optax.softmax_cross_entropy_with_integer_labels(outputs["logits"], y).mean()

    @jax.jit
    def gauss_newton(theta):
        flat = lambda v: apply_fn(unravel(v))["logits"].ravel()
        jacobian = jax.jacobian(flat)(theta)
        bend = jax.hessian(lambda o: output_loss_fn({"logits": o.reshape(5, 2)}))(flat(theta))
        return jacobian.T @ bend @ jacobian

    metric = gauss_newton(theta)
    assert np.linalg.eigvalsh(metric)[0] > -1e-12
    functions = {"apply_fn": apply_fn, "output_loss_fn": output_loss_fn}
    rule = metric_decay(0.3, "gauss_newton")
    np.testing.assert_allclose(
        taken_off(rule, params, **functions), 0.3 * metric @ theta, rtol=1e-10, atol=1e-14
    )

    def value_fn(p, scale):
        return scale * output_loss_fn(apply_fn(p))

    oracle = metric_value_and_grad(
        value_fn,
        0.3,
        "gauss_newton",
        apply_fn=lambda p, scale: apply_fn(p),
        output_loss_fn=lambda o, scale: scale * output_loss_fn(o),
    )
    value, grad = jax.jit(oracle)(params, 2.0)
    np.testing.assert_allclose(value, value_fn(params, 2.0), rtol=1e-13)
    expected = ravel_pytree(jax.grad(value_fn)(params, 2.0))[0] + 0.6 * metric @ theta
    np.testing.assert_allclose(ravel_pytree(grad)[0], expected, rtol=1e-9, atol=1e-13)


@pytest.mark.slow
def test_lanczos_stops_at_an_invariant_subspace():
    """theta = e_1 + e_2: two steps are exact, and further ones must do no harm."""
    matrix = jnp.diag(jnp.array([3.0, -2.0, 5.0, 7.0]))
    theta = jnp.array([1.0, 1.0, 0.0, 0.0])
    for steps in (2, 4):
        rule = metric_decay(1.0, "absolute_hessian", lanczos_steps=steps)
        pull = taken_off(rule, theta, value_fn=lambda v: v @ matrix @ v / 2)
        np.testing.assert_allclose(pull, [3.0, 2.0, 0.0, 0.0], atol=1e-13)
    zero = taken_off(rule, 0 * theta, value_fn=lambda v: v @ matrix @ v / 2)
    np.testing.assert_array_equal(zero, 0.0)


def test_the_printed_rule_pushes_out_along_negative_curvature():
    theta = jnp.array([1.0, 1.0])
    pull = taken_off(metric_decay(0.5), theta, value_fn=lambda w: w[0] ** 2 - w[1] ** 2)
    assert pull.tolist() == [1.0, -1.0]


def test_the_rate_is_not_multiplied_by_the_learning_rate(network, dense):
    value_fn, params = network
    theta, hessian = dense
    g = jax.grad(value_fn)(params)
    optimizer = metric_sgd(0.01, 0.3, momentum=0.9)
    state = optimizer.init(params)
    updates, _ = optimizer.update(g, state, params, value_fn=value_fn)
    expected = -0.01 * ravel_pytree(g)[0] - 0.3 * hessian @ theta
    np.testing.assert_allclose(ravel_pytree(updates)[0], expected, rtol=1e-10, atol=1e-12)


def test_mask_makes_the_other_leaves_constants(network):
    value_fn, params = network
    mask = {"first": {"w": True, "b": False}, "last": True}

    def of_the_chosen(chosen):
        first, last = chosen
        return value_fn({"first": {"w": first, "b": params["first"]["b"]}, "last": [last]})

    chosen = (params["first"]["w"], params["last"][0])
    alone = taken_off(metric_decay(0.3), chosen, value_fn=of_the_chosen)
    rule = metric_decay(0.3, mask=mask)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = rule.update(zeros, rule.init(params), params, value_fn=value_fn)
    np.testing.assert_array_equal(updates["first"]["b"], 0.0)
    pair = (updates["first"]["w"], updates["last"][0])
    np.testing.assert_allclose(-ravel_pytree(pair)[0], alone, rtol=1e-12)


def test_oracle_fed_to_sgd_takes_the_steps_of_the_optimizer(network):
    value_fn, params = network
    optimizer, sgd = metric_sgd(0.1, 0.02), optax.sgd(0.1)
    oracle = metric_value_and_grad(lambda p: (value_fn(p), {"aux": 1}), 0.2, has_aux=True)
    ours, theirs = params, params
    state, other = optimizer.init(params), sgd.init(params)
    for _ in range(3):
        updates, state = optimizer.update(jax.grad(value_fn)(ours), state, ours, value_fn=value_fn)
        ours = optax.apply_updates(ours, updates)
        (value, aux), grad = oracle(theirs)
        assert aux == {"aux": 1}
        np.testing.assert_allclose(value, value_fn(theirs), rtol=1e-14)
        updates, other = sgd.update(grad, other)
        theirs = optax.apply_updates(theirs, updates)
    np.testing.assert_allclose(ravel_pytree(ours)[0], ravel_pytree(theirs)[0], rtol=1e-12)


def test_scheduled_rate(network):
    value_fn, params = network
    oracle = metric_value_and_grad(value_fn, lambda count: 0.1 * count)
    at_3 = oracle(params, count=3)[1]
    fixed = metric_value_and_grad(value_fn, 0.3)(params)[1]
    np.testing.assert_allclose(ravel_pytree(at_3)[0], ravel_pytree(fixed)[0], rtol=1e-13)
    with pytest.raises(ValueError, match="rate is a schedule, so count="):
        oracle(params)


def test_bad_input():
    w = jnp.ones(2)
    with pytest.raises(ValueError, match="strength must be finite and not negative"):
        metric_decay(-0.1)
    with pytest.raises(ValueError, match=r"metric must be one of hessian, gauss_newton.*'fisher'"):
        metric_decay(0.1, "fisher")
    with pytest.raises(ValueError, match="lanczos_steps must be at least 1; got 0"):
        metric_decay(0.1, "absolute_hessian", lanczos_steps=0)
    with pytest.raises(ValueError, match="learning_rate must be positive and finite"):
        metric_sgd(0.0, 0.1)
    with pytest.raises(ValueError, match=r"value_fn=.*igr.transforms.metric_value_and_grad"):
        taken_off(metric_decay(0.1), w)
    with pytest.raises(ValueError, match=r"apply_fn=.*output_loss_fn="):
        taken_off(metric_decay(0.1, "gauss_newton"), w, value_fn=jnp.sum)
    with pytest.raises(ValueError, match="metric_decay needs the parameters"):
        metric_decay(0.1).update(w, metric_decay(0.1).init(w), value_fn=jnp.sum)
    with pytest.raises(ValueError, match="metric_decay needs the whole tree"):
        metric_decay(0.1).init({"w": optax.MaskedNode()})


def test_accumulation_behind_the_oracle_averages_both_terms(network):
    value_fn, params = network
    losses = [value_fn, lambda p: value_fn(jax.tree.map(jnp.sin, p))]
    optimizer = optax.MultiSteps(optax.sgd(0.1), 2, accumulator_dtype=jnp.float64)
    state, ours = optimizer.init(params), params
    for loss in losses:
        gradient = metric_value_and_grad(loss, 0.02 / 0.1)(ours)[1]
        updates, state = optimizer.update(gradient, state, ours)
        ours = optax.apply_updates(ours, updates)
    both = lambda p: sum(loss(p) for loss in losses) / 2
    whole = metric_sgd(0.1, 0.02)
    updates, _ = whole.update(jax.grad(both)(params), whole.init(params), params, value_fn=both)
    expected = ravel_pytree(optax.apply_updates(params, updates))[0]
    np.testing.assert_allclose(ravel_pytree(ours)[0], expected, rtol=1e-11)
