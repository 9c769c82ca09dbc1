"""mu from the theory, checked by the order at which real runs of optax close in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sympy

import igr
from igr.transforms import cancel_implicit, egr, match_implicit

GD = igr.methods.gradient_descent()


def value_fn(p):
    return jnp.sum(jnp.cosh(p)) + p[0] * p[1] ** 2 / 3


START = jnp.array([0.8, -0.5])


def _end(learning_rate, mu, momentum, time, start=START, state=None):
    optimizer = egr(learning_rate, mu, momentum=momentum)
    steps = round(time / learning_rate)
    return igr.run(optimizer, value_fn, start, steps, record_every=steps, state=state).last


def _slope(errors, hs):
    return np.polyfit(np.log(hs), np.log(errors), 1)[0]


def test_cancelled_gradient_descent_follows_the_gradient_flow_one_order_closer():
    """Global error against the exact flow: h with mu = 0, h^2 with the mu of the theory."""
    field = igr.vector_field(igr.modified_equation(GD, 0), value_fn, 0.1)
    flow = igr.flow(field, START, 1.0, rtol=1e-12).ys[0]
    hs = np.array([0.05, 0.025, 0.0125])
    plain = [np.linalg.norm(_end(h, 0.0, None, 1.0) - flow) for h in hs]
    cancelled = [np.linalg.norm(_end(h, cancel_implicit(GD, h), None, 1.0) - flow) for h in hs]
    assert abs(_slope(plain, hs) - 1) < 0.1
    assert abs(_slope(cancelled, hs) - 2) < 0.1


def test_matched_small_step_ends_where_the_large_step_does():
    """Both steps shrink together, h = target/5: apart by h without mu, by h^2 with it."""
    targets = np.array([0.1, 0.05, 0.025])
    large = [_end(t, 0.0, None, 1.0) for t in targets]
    plain = [
        np.linalg.norm(_end(t / 5, 0.0, None, 1.0) - e) for t, e in zip(targets, large, strict=True)
    ]
    matched = [
        np.linalg.norm(_end(t / 5, match_implicit(GD, t / 5, t), None, 1.0) - e)
        for t, e in zip(targets, large, strict=True)
    ]
    assert abs(_slope(plain, targets) - 1) < 0.1
    assert abs(_slope(matched, targets) - 2) < 0.1


def test_cancelled_heavy_ball_follows_its_gradient_flow_one_order_closer():
    """From the filled memory on, against the flow of E/(1 - beta) from the same point."""
    beta = 0.5
    method = igr.methods.heavy_ball(beta)
    hs = np.array([0.02, 0.01, 0.005])
    errors = {True: [], False: []}
    for h in hs:
        for cancel in (True, False):
            mu = cancel_implicit(method, h) if cancel else 0.0
            steps = round(0.6 / h)  # the same time for each h, and beta^30 = 1e-9 at least
            warm = igr.run(egr(h, mu, momentum=beta), value_fn, START, steps, record_every=steps)
            end = _end(h, mu, beta, 0.4, warm.last, warm.state)
            flow = igr.flow(
                lambda t, p, args: -jax.grad(value_fn)(p) / (1 - beta), warm.last, 0.4, rtol=1e-12
            ).ys[0]
            errors[cancel].append(np.linalg.norm(end - flow))
    assert abs(_slope(errors[False], hs) - 1) < 0.1
    assert abs(_slope(errors[True], hs) - 2) < 0.15


def test_formulas_by_hand():
    assert match_implicit(GD, 0.02, 0.1) == pytest.approx(0.02)
    assert cancel_implicit(GD, 0.2) == pytest.approx(-0.05)
    beta = 0.9
    heavy = igr.methods.heavy_ball(beta)
    expected = (1 + beta) / (4 * (1 - beta) ** 2)
    assert cancel_implicit(heavy, 0.01) == pytest.approx(-0.01 * expected)


def test_bad_input():
    with pytest.raises(ValueError, match="learning_rate must be positive"):
        cancel_implicit(GD, 0.0)
    with pytest.raises(ValueError, match="target_learning_rate must be positive"):
        match_implicit(GD, 0.1, float("inf"))
    with pytest.raises(ValueError, match=r"open symbols \(beta\)"):
        cancel_implicit(igr.methods.heavy_ball(sympy.Symbol("beta")), 0.1)
