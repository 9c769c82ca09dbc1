"""The modified loss of adaptive methods as a JAX function, against dense matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import igr

X = np.random.default_rng(0).normal(size=(5, 2))
Y = np.sin(X[:, 0]) + X[:, 1]
PARAMS = jnp.asarray(0.7 * np.random.default_rng(1).normal(size=9))
NU = np.random.default_rng(2).uniform(0.1, 1.0, size=9)
H, T, C, EPS = 1e-3, 0.7, 0.3, 0.05


def network(p):
    """A tanh network of three units."""
    hidden = jnp.tanh(X @ p[:6].reshape(2, 3))
    return jnp.mean((hidden @ p[6:] - Y) ** 2)


evaluated = jax.jit(jax.value_and_grad(network))


@pytest.mark.parametrize(
    ("make", "decay"),
    [
        pytest.param(lambda: igr.methods.adam(0.6, 0.9, EPS), 0.0, marks=pytest.mark.slow),
        (lambda: igr.methods.adamw(0.6, 0.9, EPS, weight_decay=C), C),
        (lambda: igr.methods.rmsprop(0.9, EPS, keep=("nu",)), 0.0),
    ],
    ids=["adam", "adamw", "rmsprop"],
)
def test_what_is_left_of_the_field_is_a_factor_of_g(make, decay):
    """F1 + P0 (dense Hessian terms): no entry of g alone moves another parameter's field."""
    method = make()
    eq = igr.modified_equation(method, 1)
    value = igr.modified_value_fn(eq, network, H)
    state = PARAMS, {"nu": NU}
    fields = [igr.vector_field(e, network, H) for e in (eq.truncate(0), eq)]
    f0, f, slope, gradient, hessian = jax.jit(
        lambda p: (
            *(field(T, (p, state[1]), None)[0] for field in fields),
            jax.grad(lambda p: value((p, {"nu": NU}), T))(p),
            jax.grad(network)(p),
            jax.hessian(network)(p),
        )
    )(PARAMS)
    rmsprop = "RMSProp" in method.name
    b1 = 0.0 if rmsprop else 0.6
    f0, f, slope, gradient, hessian, params, nu = map(
        np.asarray, (f0, f, slope, gradient, hessian, PARAMS, NU)
    )
    root = np.sqrt(nu + EPS) if rmsprop else np.sqrt(nu / (1 - 0.9 ** (T / H))) + EPS
    weight = (1 + b1) / (2 * (1 - b1))
    by_hand = gradient + H * weight * (hessian @ (gradient / root + decay * params))
    by_hand += H * weight * decay * gradient
    np.testing.assert_allclose(slope, by_hand, rtol=1e-10)
    np.testing.assert_allclose(f0, -gradient / root - decay * params, rtol=1e-10)
    # What the metric and the decay do at h^1 is elementwise in g, theta and nu.
    rest = (f + slope / root + decay * params) / H
    kappa = 0.1 / H
    moved = kappa * (gradient**2 - nu)
    if rmsprop:
        expected = 0.5 * gradient / (2 * root**3) * moved
    else:
        # e^(h D) of nu and t against half of it from B: half of d/dt of 1/r, with its sign.
        full = 1 - 0.9 ** (T / H)
        rate = -np.log(0.9) / H
        speed = moved / full - nu * rate * (1 - full) / full**2
        change = speed / (2 * np.sqrt(nu / full) * root**2)
        expected = 0.5 * gradient * change + weight * decay * gradient / root
        expected -= 0.5 * decay * (gradient / root + decay * params)
    np.testing.assert_allclose(rest, expected, atol=2e-6 * np.abs(rest).max())


def test_sam_with_the_length_of_the_gradient():
    r = 1.5
    eq = igr.modified_equation(igr.methods.sam(r), 1)
    value = igr.modified_value_fn(eq, network, 0.1)
    field = igr.vector_field(eq, network, 0.1)
    (loss, gradient), (found, slope), motion = jax.jit(
        lambda p: (
            jax.value_and_grad(network)(p),
            jax.value_and_grad(value)(p),
            field(0.0, p, None),
        )
    )(PARAMS)
    length = np.linalg.norm(gradient)
    expected = float(loss + 0.1 * (length**2 / 4 + r * length))
    assert float(found) == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(slope, -motion, rtol=1e-9)


def test_without_a_time_the_bias_is_gone():
    eq = igr.modified_equation(igr.methods.adam(0.6, 0.9, EPS), 1)
    value = igr.modified_value_fn(eq, network, H)
    loss, gradient = evaluated(PARAMS)
    penalty = H * 1.6 / (4 * 0.4) * np.sum(gradient**2 / (np.sqrt(NU) + EPS))
    found = jax.jit(value)((PARAMS, {"nu": NU}))
    assert float(found) == pytest.approx(float(loss + penalty), rel=1e-12)


def test_where_there_is_no_loss_none_is_compiled():
    eq = igr.modified_equation(igr.methods.adam(keep=()), 1)
    with pytest.raises(igr.NotAGradientError, match="the term"):
        igr.modified_value_fn(eq, network, H)


def test_the_share_is_that_in_the_metric():
    value, gradient = map(np.asarray, evaluated(PARAMS))
    penalty = H * 1.6 / (4 * 0.4) * np.sum(gradient**2 / (np.sqrt(NU) + EPS))
    adam = igr.methods.adam(0.6, 0.9, EPS)
    share = igr.diagnostics.modified_loss_share(network, PARAMS, H, adam, kept={"nu": NU})
    np.testing.assert_allclose(share, (value, penalty, penalty / (value + penalty)), rtol=1e-12)
    biased = igr.diagnostics.modified_loss_share(network, PARAMS, H, adam, kept={"nu": NU}, t=T)
    root = np.sqrt(NU / (1 - 0.9 ** (T / H))) + EPS
    expected = H * 1.6 / (4 * 0.4) * np.sum(gradient**2 / root)
    np.testing.assert_allclose(biased.penalty, expected, rtol=1e-12)


def test_the_share_asks_for_what_is_kept():
    share = igr.diagnostics.modified_loss_share
    with pytest.raises(ValueError, match=r"states that Adam.* keeps, which are nu; got none"):
        share(network, PARAMS, H, igr.methods.adam())
    with pytest.raises(ValueError, match="which are none; got nu"):
        share(network, PARAMS, H, kept={"nu": NU})
    with pytest.raises(igr.NotAGradientError, match="the term"):
        share(network, PARAMS, H, igr.methods.adam(keep=()))
