"""The step of an elementwise method against optax and against loops in NumPy."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import igr
from igr.flows import kinds, optimizer_of

START = np.array([0.3, -1.0, 2.0])


def value_fn(p):
    return jnp.sum(jnp.arange(1.0, 4) * jnp.cosh(p))


def gradient(p):
    return np.arange(1.0, 4) * np.sinh(p)


def _run(optimizer, steps=12):
    return np.asarray(igr.run(optimizer, value_fn, jnp.asarray(START), steps).params)


@pytest.mark.parametrize(
    ("method", "optimizer"),
    [
        (igr.methods.rmsprop(0.5, 0.01), optax.rmsprop(0.02, 0.5, 0.01, eps_in_sqrt=True)),
        (
            igr.methods.rmsprop(0.5, 0.01, eps_in_sqrt=False, keep=("nu",)),
            optax.rmsprop(0.02, 0.5, 0.01, eps_in_sqrt=False),
        ),
        (igr.methods.adam(0, 0.7, 1e-3), optax.adam(0.02, 0, 0.7, 1e-3)),
        (
            igr.methods.adamw(0, 0.7, 1e-3, weight_decay=0.1),
            optax.adamw(0.02, 0, 0.7, 1e-3, weight_decay=0.1),
        ),
        (igr.methods.lion(0.5, 0.7, smoothing=1e-20), optax.lion(0.02, 0.5, 0.7, weight_decay=0)),
    ],
    ids=["rmsprop", "rmsprop kept", "adam without momentum", "adamw", "lion"],
)
def test_equals_optax_from_the_first_step(method, optimizer):
    ours = _run(optimizer_of(method, 0.02))
    # optax corrects the bias in single precision.
    np.testing.assert_allclose(ours, _run(optimizer), rtol=1e-7)


def test_adam_by_a_loop():
    """The second moment is corrected for its bias, the first is not: see `igr.methods.adam`."""
    h, b1, b2, eps, decay = 0.02, 0.5, 0.9, 1e-3, 0.3
    method = igr.methods.adam(b1, b2, eps, weight_decay=decay)
    x, mu, nu = START.copy(), np.zeros(3), np.zeros(3)
    for n in range(12):
        g = gradient(x)
        mu, nu = b1 * mu + (1 - b1) * g, b2 * nu + (1 - b2) * g**2
        x = x - h * (mu / (np.sqrt(nu / (1 - b2 ** (n + 1))) + eps) + decay * x)
    np.testing.assert_allclose(_run(optimizer_of(method, h))[-1], x, rtol=1e-12)


def test_the_state_shows_what_is_kept():
    state = optimizer_of(igr.methods.adam(), 0.1).init(jnp.asarray(START))
    np.testing.assert_array_equal(optax.tree.get(state, "nu"), np.zeros(3))


def test_params_are_needed():
    optimizer = optimizer_of(igr.methods.signsgd(0.1), 0.1)
    with pytest.raises(ValueError, match=r"reads the params.*optimizer\.update\(grads, state"):
        optimizer.update(jnp.ones(3), optimizer.init(jnp.ones(3)))


NEVER_NEGATIVE = [
    (igr.methods.adam(keep=("mu", "nu")), {"nu"}),
    (igr.methods.nadam(0.5, 0.9, keep=("mu",)), set()),
    (igr.methods.rmsprop(keep=("nu",)), {"nu"}),
    (igr.methods.lion(smoothing=0.1, keep=("mu",)), set()),
    (lambda h: optax.adagrad(h), {"sum_of_squares"}),
    (lambda h: optax.adadelta(h), {"e_x"}),
    (lambda h: optax.adan(h), {"n"}),
]


@pytest.mark.parametrize(("method", "names"), NEVER_NEGATIVE)
def test_what_no_gradient_takes_below_zero(method, names):
    """By the description; the steps on gradients of both signs show that it says all of it."""
    method = igr.from_optax(method) if callable(method) else method
    assert kinds.never_negative_of(method) == names
    optimizer = optimizer_of(method, 0.01)
    params = jnp.asarray(START)
    state = optimizer.init(params)
    below = set()
    for g in np.random.default_rng(0).normal(size=(8, 3)):
        _, state = optimizer.update(jnp.asarray(g), state, params)
        below |= {y for y, x in state.kept.items() if jnp.any(x < 0)}
    assert below == set(method.kept) - names
