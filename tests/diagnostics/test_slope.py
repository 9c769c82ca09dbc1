import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sympy

import igr
from igr.diagnostics import implicit_gradient_regularizer, loss_surface_slope, modified_loss_share

METHODS = [
    igr.methods.gradient_descent(),
    igr.methods.heavy_ball(0.5),
    igr.methods.ema_momentum(0.75),
    igr.methods.nesterov(0.5),
]


@pytest.fixture(scope="module")
def network():
    """A loss of seven parameters, two of them in a nested leaf, beside an integer and a string."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 2)), rng.normal(size=5)
    params = {"w": jnp.asarray(rng.normal(size=(2, 2))), "out": [jnp.ones(2), jnp.array(0.3)]}
    params |= {"count": jnp.arange(3), "name": "tanh"}
    loss = jax.jit(lambda w, v, b: jnp.mean((jnp.tanh(x @ w) @ v + b - y) ** 2))
    return lambda p: loss(p["w"], *p["out"]), params


def finite_differences(value_fn, params):
    """The gradient, entry by entry, by central differences."""
    gradient = []
    leaves, structure = jax.tree.flatten(params)
    for k, leaf in enumerate(leaves):
        if not isinstance(leaf, jax.Array) or leaf.dtype != float:
            continue
        for index in np.ndindex(leaf.shape):
            moved = []
            for e in (1e-5, -1e-5):
                there = np.array(leaf)
                there[index] += e
                at = structure.unflatten([*leaves[:k], there, *leaves[k + 1 :]])
                moved.append(float(value_fn(at)))
            gradient.append((moved[0] - moved[1]) / 2e-5)
    return np.array(gradient)


def test_against_finite_differences(network):
    value_fn, params = network
    gradient = finite_differences(value_fn, params)
    assert gradient.size == 7
    regularizer = implicit_gradient_regularizer(value_fn, params)
    np.testing.assert_allclose(regularizer, gradient @ gradient / 7, rtol=1e-8)
    np.testing.assert_allclose(
        loss_surface_slope(value_fn, params), np.linalg.norm(gradient), rtol=1e-8
    )
    share = modified_loss_share(value_fn, params, 0.2)
    np.testing.assert_allclose(share.loss, value_fn(params), rtol=1e-14)
    np.testing.assert_allclose(share.penalty, 0.2 / 4 * gradient @ gradient, rtol=1e-8)
    np.testing.assert_allclose(share.share, share.penalty / (share.loss + share.penalty))


def test_the_slope_is_the_tangent_of_the_angle_of_the_surface():
    params = jnp.array([0.3, -1.2])
    value_fn = lambda w: w[0] ** 2 * w[1]
    normal = np.array([-2 * 0.3 * -1.2, -(0.3**2), 1.0])  # of the graph of E, by hand
    angle = np.arccos(normal[2] / np.linalg.norm(normal))
    np.testing.assert_allclose(loss_surface_slope(value_fn, params), np.tan(angle))


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9])
def test_heavy_ball_by_hand(beta):
    """E + h (1 + beta) / (4 (1 - beta)^2) |grad E|^2, with E = 2 and |grad E|^2 = 4 at w = 2."""
    method = igr.methods.heavy_ball(beta)
    share = modified_loss_share(lambda w: w**2 / 2, jnp.array(2.0), 0.1, method)
    penalty = 0.1 * (1 + beta) / (4 * (1 - beta) ** 2) * 4
    np.testing.assert_allclose(share, (2, penalty, penalty / (2 + penalty)))


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_the_penalty_changes_the_rate_of_a_real_run_as_it_says(method):
    """On E = w^2/2, with r = penalty/loss, w decays 1 + r times as fast as it does for h -> 0."""
    h = 1e-4
    optimizer = {
        "gradient descent": lambda m, g: (g, g),
        "heavy ball": lambda m, g: (m / 2 + g, m / 2 + g),
        "averaged momentum": lambda m, g: (0.75 * m + 0.25 * g,) * 2,
        "Nesterov": lambda m, g: (m / 2 + g, (m / 2 + g) / 2 + g),
    }[method.name.split(" (")[0]]
    speed = 2.0 if method.name.startswith(("heavy", "Nest")) else 1.0  # 1 / (1 - beta)
    w, m = 1.0, 0.0
    for _ in range(200):  # the memory forgets the start
        m, step = optimizer(m, w)
        w, before = w - h * step, w
    rate = -np.log(w / before) / (h * speed)
    share = modified_loss_share(lambda w: w**2 / 2, jnp.array(1.0), h, method)
    np.testing.assert_allclose(rate, 1 + share.penalty / share.loss, rtol=0, atol=30 * h**2)


def test_under_jit_and_grad_and_in_the_dtype_of_the_parameters():
    quartic = lambda w: jnp.sum(w**4)
    w = jnp.array([1.0, 2.0])
    gradient = jax.jit(jax.grad(lambda w: implicit_gradient_regularizer(quartic, w)))(w)
    np.testing.assert_allclose(gradient, 48 * w**5)  # of (4 w^3)^2 / 2, entry by entry
    single = jnp.array([1.0, 2.0], jnp.float32)
    assert loss_surface_slope(quartic, single).dtype == jnp.float32
    half = implicit_gradient_regularizer(lambda w: jnp.sum(w), jnp.ones(3000, jnp.bfloat16))
    assert half == 1  # bfloat16 would lose the sum of 3,000 ones
    assert half.dtype == jnp.float32
    share = jax.jit(lambda w, h: modified_loss_share(quartic, w, h))(w, 0.1)
    np.testing.assert_allclose(share.penalty, 0.1 / 4 * (4**2 + 32**2))


def test_errors():
    loss = lambda w: jnp.sum(w**2)
    with pytest.raises(ValueError, match=r"at least one floating array; got leaves of type"):
        implicit_gradient_regularizer(loss, jnp.arange(3))
    with pytest.raises(ValueError, match=r"one real floating number; it returned shape \(3,\)"):
        loss_surface_slope(lambda w: w, jnp.ones(3))
    with pytest.raises(ValueError, match=r"learning_rate must be positive and finite; got -0\.1"):
        modified_loss_share(loss, jnp.ones(3), -0.1)
    with pytest.raises(ValueError, match=r"open symbols \(b\): give them numbers"):
        modified_loss_share(loss, jnp.ones(3), 0.1, igr.methods.heavy_ball(sympy.Symbol("b")))
    decayed = igr.methods.gradient_descent(weight_decay=0.1)
    with pytest.raises(ValueError, match="Runge-Kutta methods without weight decay do"):
        modified_loss_share(loss, jnp.ones(3), 0.1, decayed)
