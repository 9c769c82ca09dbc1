"""Schedules and players: runs as loops in numpy, flows of fields derived by hand by scipy.

The field of a step z -> z + h A(t, z) + h^2 B(t, z) is A + h (B - (dA/dt + DA A)/2). Here A has the
rate of the step that ends at t, so that dA/dt is a part of B too.
"""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.integrate import solve_ivp

import igr

START = np.array([1.5, 0.6])
EXACT = {"method": "DOP853", "rtol": 1e-12, "atol": 1e-14}


def loss(w):
    return (w[0] * w[1] - 1) ** 2 / 2 + 0.1 * jnp.sum(w**4)


def gradient(w):
    return (w[0] * w[1] - 1) * w[::-1] + 0.4 * w**3


def hessian(w):
    off = 2 * w[0] * w[1] - 1
    return np.array([[w[1] ** 2, off], [off, w[0] ** 2]]) + np.diag(1.2 * w**2)


def ends(field, start, *times):
    """The flow of `field(t, z)` at the last time; it may jump in its derivatives at the others."""
    for t0, t1 in pairwise(times):
        start = solve_ivp(field, (t0, t1), start, **EXACT).y[:, -1]
    return start


def check_distance(seen, flow, run):
    np.testing.assert_allclose(seen.distance[1][-1], np.linalg.norm(flow - run), rtol=1e-3)


@pytest.mark.slow
def test_gradient_descent_with_a_rate_that_falls():
    """-s g - (h/2)(s^2 H g + s' g), with s the rate over h, at t - h.

    By differences -s g at the rate and the place of half a step ago.
    """
    h, steps, falls = 0.05, 40, 60
    seen = igr.compare(
        loss, jnp.array(START), h, steps, (1, "differences"), record_every=steps, sharpness=False,
        optimizer=lambda h: optax.sgd(optax.cosine_decay_schedule(h, falls)),
    )  # fmt: skip
    run = START
    for n in range(steps):
        run = run - h * (1 + np.cos(np.pi * n / falls)) / 2 * gradient(run)
    np.testing.assert_allclose(seen.discrete.params[-1], run, rtol=1e-12)

    def field(t, w, order):
        at = np.pi * (t / h - 1) / falls
        s, slope = (1 + np.cos(at)) / 2, -np.sin(at) * np.pi / h / falls / 2
        g = gradient(w)
        return -s * g - order * h / 2 * (s**2 * hessian(w) @ g + slope * g)

    plain, flow = (ends(lambda t, w, p=p: field(t, w, p), START, 0, steps * h) for p in (0, 1))
    np.testing.assert_allclose(seen.flows[1][-1], flow, rtol=1e-8)
    check_distance(seen, flow, run)
    assert 10 * seen.distance[1][-1] < np.linalg.norm(plain - run)

    rate = lambda n: (1 + np.cos(np.pi * n / falls)) / 2
    behind = lambda t, w: -rate(t / h - 0.5) * gradient(w + h / 2 * rate(t / h) * gradient(w))
    met = ends(behind, START, 0, steps * h)
    np.testing.assert_allclose(seen.flows["differences"][-1], met, rtol=1e-8)
    assert 10 * seen.distance["differences"][-1] < np.linalg.norm(plain - run)


@pytest.mark.slow
def test_adamw_with_warm_up_and_cosine():
    """Its state is (theta, nu), for what m remembers is made of gradients on the flow."""
    h, steps, warm, falls, first = 0.004, 60, 50, 160, 30
    b1, b2, eps, decay = 0.5, 0.99, 1e-3, 0.1
    seen = igr.compare(
        loss, jnp.array(START), h, steps, (1,), record_every=steps, sharpness=False,
        burn_in=first,
        optimizer=lambda h: optax.adamw(
            optax.warmup_cosine_decay_schedule(0.0, h, warm, falls), b1, b2, eps, weight_decay=decay
        ),
    )  # fmt: skip

    def share(n):
        """The rate over h, and its slope by n."""
        if n < warm:
            return n / warm, 1 / warm
        at = np.pi / (falls - warm)
        return (1 + np.cos(at * (n - warm))) / 2, -np.sin(at * (n - warm)) * at / 2

    run, m, nu = START, np.zeros(2), np.zeros(2)
    for n in range(first + steps):
        if n == first:
            start = np.concatenate([run, nu])
        g = gradient(run)
        m, nu = b1 * m + (1 - b1) * g, b2 * nu + (1 - b2) * g**2
        step = m / (1 - b1 ** (n + 1)) / (np.sqrt(nu / (1 - b2 ** (n + 1))) + eps) + decay * run
        run = run - h * share(n)[0] * step
    np.testing.assert_allclose(seen.discrete.params[-1], run, rtol=1e-7)  # its powers are single

    def field(t, z, order):
        n, w, nu = t / h, z[:2], z[2:]
        (s, slope), g, hess, k = share(n - 1), gradient(w), hessian(w), (1 - b2) / h
        unbiased = 1 - b2**n
        root = np.sqrt(nu / unbiased)
        below = root + eps
        by_nu = 1 / (2 * np.sqrt(nu * unbiased))
        by_t = root / (2 * unbiased) * b2**n * np.log(b2) / h
        a = np.concatenate([-s * (g / below + decay * w), k * (g**2 - nu)])
        turned = hess @ a[:2]  # how g changes on the flow
        averaged = s * (b1 / (1 - b1) * turned / below + g / below**2 * by_nu * a[2:])
        in_time = -slope / h * (g / below + decay * w) + s * g / below**2 * by_t
        along = -s * (turned / below - g / below**2 * by_nu * a[2:] + decay * a[:2])
        of_nu = k * (2 * g * turned - a[2:])
        b = np.concatenate([averaged + (in_time - along) / 2, -of_nu / 2])
        return a + h * b * order

    times = h * np.array([first, warm + 1, first + steps])
    flows = [ends(lambda t, z, p=p: field(t, z, p), start, *times) for p in (0, 1)]
    np.testing.assert_allclose(seen.flows[1][-1], flows[1][:2], rtol=1e-7)
    for found in jax.tree.leaves(seen.kept[1]["nu"]):
        np.testing.assert_allclose(found[-1], flows[1][2:], rtol=1e-7)
    check_distance(seen, flows[1][:2], run)
    assert 20 * seen.distance[1][-1] < np.linalg.norm(flows[0][:2] - run)


@pytest.mark.parametrize(
    "turns", [pytest.param("simultaneous", marks=pytest.mark.slow), "alternating"]
)
def test_two_players(turns):
    """A = -(g1, g2) of the two; the second who sees the first's move has B = (0, d_x g2 g1)."""
    h, steps = 0.05, 30
    first = lambda z: z[0] * z[1] + z[0] ** 4 / 4
    second = lambda z: -z[0] * z[1] + z[0] * z[1] ** 2 / 2
    method = getattr(igr.methods, turns)()
    start = (jnp.array(1.0), jnp.array(2.0))
    seen = igr.compare((first, second), start, h, steps, (0, 1), method, record_every=steps)
    x, y = 1.0, 2.0
    for _ in range(steps):
        was, x = x, x - h * (y + x**3)
        at = x if turns == "alternating" else was
        y = y - h * (-at + at * y)
    run = np.array([x, y])
    np.testing.assert_allclose([p[-1] for p in seen.discrete.params], run, rtol=1e-12)

    def field(t, z):
        x, y = z
        a = -np.array([y + x**3, -x + x * y])
        jacobian = -np.array([[3 * x**2, 1], [y - 1, x]])
        b = np.array([0, -(y - 1) * a[0]]) if turns == "alternating" else 0
        return a + h * (b - jacobian @ a / 2)

    flow = ends(field, np.array([1.0, 2.0]), 0, steps * h)
    np.testing.assert_allclose([p[-1] for p in seen.flows[1]], flow, rtol=1e-8)
    check_distance(seen, flow, run)
    assert 5 * seen.distance[1][-1] < seen.distance[0][-1]
