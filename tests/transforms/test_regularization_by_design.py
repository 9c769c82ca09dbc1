"""mu from the theory, checked by the order at which real runs of optax close in."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.integrate
import sympy

import igr
from igr.transforms import cancel_implicit, egr, match_implicit

GD = igr.methods.gradient_descent()
START = np.array([0.8, -0.5])


def value_fn(p):
    return jnp.sum(jnp.cosh(p)) + p[0] * p[1] ** 2 / 3


def gradient_flow(start, time):
    """The exact flow, with the gradient by hand."""

    def field(_, p):
        return -np.sinh(p) - np.array([p[1] ** 2 / 3, 2 * p[0] * p[1] / 3])

    solution = scipy.integrate.solve_ivp(
        field, (0, time), start, method="DOP853", rtol=1e-12, atol=1e-14
    )
    return solution.y[:, -1]


@partial(jax.jit, static_argnames="momentum")
def descend(learning_rate, mu, steps, start, velocity=None, *, momentum=None):
    """The last iterate of EGR, and the momentum's memory."""
    optimizer = egr(learning_rate, mu, momentum)
    state = optimizer.init(start)
    if velocity is not None:
        state = optax.tree.set(state, trace=velocity)

    def step(_, carry):
        params, state = carry
        updates, state = optimizer.update(
            jax.grad(value_fn)(params), state, params, value_fn=value_fn
        )
        return optax.apply_updates(params, updates), state

    params, state = jax.lax.fori_loop(0, steps, step, (start, state))
    return params, optax.tree.get(state, "trace")


def end(learning_rate, mu, time=1.0):
    return descend(learning_rate, mu, round(time / learning_rate), jnp.asarray(START))[0]


def slope(errors, hs):
    return np.polyfit(np.log(hs), np.log(errors), 1)[0]


def test_cancelled_gradient_descent_follows_the_gradient_flow_one_order_closer():
    """Global error against the exact flow: h with mu = 0, h^2 with the mu of the theory."""
    flow = gradient_flow(START, 1.0)
    hs = np.array([0.05, 0.025, 0.0125])
    plain = [np.linalg.norm(end(h, 0.0) - flow) for h in hs]
    cancelled = [np.linalg.norm(end(h, cancel_implicit(GD, h)) - flow) for h in hs]
    assert abs(slope(plain, hs) - 1) < 0.1
    assert abs(slope(cancelled, hs) - 2) < 0.1


def test_matched_small_step_ends_where_the_large_step_does():
    """Both steps shrink together, h = target/5: apart by h without mu, by h^2 with it."""
    targets = np.array([0.1, 0.05, 0.025])
    plain, matched = [], []
    for target in targets:
        large, h = end(target, 0.0), target / 5
        plain.append(np.linalg.norm(end(h, 0.0) - large))
        matched.append(np.linalg.norm(end(h, match_implicit(GD, h, target)) - large))
    assert abs(slope(plain, targets) - 1) < 0.1
    assert abs(slope(matched, targets) - 2) < 0.1


def test_cancelled_heavy_ball_follows_its_gradient_flow_one_order_closer():
    """From the filled memory on, against the flow of E/(1 - beta) from the same point."""
    beta = 0.5
    method = igr.methods.heavy_ball(beta)
    hs = np.array([0.02, 0.01, 0.005])
    errors = {True: [], False: []}
    for h in hs:
        for cancel in (True, False):
            mu = cancel_implicit(method, h) if cancel else 0.0
            # The same time for each h, and beta^30 = 1e-9 at least.
            warm, velocity = descend(
                h, mu, round(0.6 / h), jnp.asarray(START), jnp.zeros(2), momentum=beta
            )
            last, _ = descend(h, mu, round(0.4 / h), warm, velocity, momentum=beta)
            flow = gradient_flow(np.asarray(warm), 0.4 / (1 - beta))
            errors[cancel].append(np.linalg.norm(last - flow))
    assert abs(slope(errors[False], hs) - 1) < 0.1
    assert abs(slope(errors[True], hs) - 2) < 0.15


def test_formulas_by_hand():
    assert match_implicit(GD, 0.02, 0.1) == pytest.approx(0.02)
    assert cancel_implicit(GD, 0.2) == pytest.approx(-0.05)
    beta = 0.9
    heavy = igr.methods.heavy_ball(beta)
    expected = (1 + beta) / (4 * (1 - beta) ** 2)
    assert cancel_implicit(heavy, 0.01) == pytest.approx(-0.01 * expected)


def test_adam_in_its_metric():
    """Matched or cancelled, it follows the same loss as the other step, or E alone."""
    b1, eps, h, target, nu = 0.6, 0.05, 1e-3, 4e-3, jnp.array([0.3, 0.9])
    adam = igr.methods.adam(b1, 0.9, eps)
    equation, at = igr.modified_equation(adam, 1), (jnp.array([1.2, -0.7]), {"nu": nu})

    def value_fn(p):
        return jnp.cosh(p[0]) * p[1] ** 2 + jnp.sin(p[0] * p[1])

    gradient = jax.grad(value_fn)(at[0])
    length = jnp.sum(gradient**2 / (jnp.sqrt(nu) + eps))
    small, large = (igr.modified_value_fn(equation, value_fn, x)(at) for x in (h, target))
    assert small + match_implicit(adam, h, target) * length == pytest.approx(
        float(large), rel=1e-14
    )
    cancelled = small + cancel_implicit(adam, h) * length
    assert cancelled == pytest.approx(float(value_fn(at[0])), rel=1e-14)
    assert match_implicit(adam, h, target) == pytest.approx(0.003 * 1.6 / (4 * 0.4))
    assert cancel_implicit(igr.methods.rmsprop(keep=("nu",)), 0.1) == pytest.approx(-0.1 / 4)


def test_where_a_metric_does_not_do():
    with pytest.raises(ValueError, match=r"Adam.*more to its loss than a multiple.*weight decay"):
        cancel_implicit(igr.methods.adamw(weight_decay=0.1), 0.1)
    with pytest.raises(igr.NotAGradientError, match="the term"):
        cancel_implicit(igr.methods.adam(keep=()), 0.1)


def test_bad_input():
    with pytest.raises(ValueError, match="learning_rate must be positive"):
        cancel_implicit(GD, 0.0)
    with pytest.raises(ValueError, match="target_learning_rate must be positive"):
        match_implicit(GD, 0.1, float("inf"))
    with pytest.raises(ValueError, match=r"open symbols \(beta\)"):
        cancel_implicit(igr.methods.heavy_ball(sympy.Symbol("beta")), 0.1)
    with pytest.raises(TypeError, match=r"method must be one of igr\.methods"):
        cancel_implicit("gradient descent", 0.1)
    for method in (
        igr.methods.simultaneous(),
        igr.methods.heavy_ball(0.9, weight_decay=0.1),
        igr.methods.reshuffled_sgd(4),
    ):
        with pytest.raises(ValueError, match="method must follow the gradient of one loss"):
            cancel_implicit(method, 0.1)
