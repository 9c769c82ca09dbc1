"""What a comparison costs, where it is not to be trusted, and that it is of the right equation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import igr

START = jnp.array([2.0, 0.3])


def product_loss(w):
    return (w[0] * w[1] - 1) ** 2 / 2


def network(activation):
    """A small network, its loss, and its start."""
    keys = jax.random.split(jax.random.key(0), 4)
    params = [jax.random.normal(k, (m, n)) for k, m, n in zip(keys, (6, 12), (12, 3), strict=False)]
    params = [w / jnp.sqrt(len(w)) for w in params]
    x, y = jax.random.normal(keys[2], (40, 6)), jax.random.normal(keys[3], (40, 3))
    return lambda p: jnp.mean((activation(x @ p[0]) @ p[1] - y) ** 2), params


@pytest.mark.parametrize(
    "orders", [(1,), pytest.param((0, 2, "differences"), marks=pytest.mark.slow)], ids=str
)
def test_a_second_comparison_compiles_nothing(compilations, orders):
    """Another step, start and number in the loss; the loss a function made anew."""

    def again(c, h):
        loss = lambda w: c * product_loss(w)
        return igr.compare(loss, c * START, h, 10, orders).travelled

    again(1.0, 0.05)
    assert compilations(lambda: again(0.5, 0.06)) == 0


@pytest.mark.parametrize(
    ("optimizer", "off"),
    [
        (optax.sgd(0.05, momentum=0.9), "53 %"),
        (optax.sgd(0.1), "50 %"),
        (optax.adam(0.05), "%"),
    ],
)
def test_the_wrong_equation_is_refused(optimizer, off):
    with pytest.raises(ValueError, match=f"steps differ by .*{off} from those of gradient descent"):
        igr.compare(product_loss, START, 0.05, 5, (0,), optimizer=optimizer)


@pytest.mark.slow
def test_a_memory_that_takes_long_to_fill_is_looked_at_too():
    """With momentum of 0.99, 1,833 steps: both are held against each other from empty memories."""
    slow = igr.methods.heavy_ball(0.99)
    wrong = optax.sgd(1e-3, momentum=0.98)
    with pytest.raises(ValueError, match=r"steps differ by .* from those of heavy ball"):
        igr.compare(product_loss, START, 1e-3, 5, (0,), slow, optimizer=wrong)
    right = optax.sgd(1e-3, momentum=0.99)
    seen = igr.compare(
        product_loss, START, 1e-3, 5, (0,), slow, optimizer=right, burn_in=0, sharpness=False
    )
    assert np.isfinite(seen.distance[0]).all()


@pytest.mark.slow
def test_the_method_is_read_from_a_function_of_the_step():
    seen = igr.compare(
        product_loss, START, 0.01, 20, (0, 1), optimizer=lambda h: optax.sgd(h, momentum=0.5)
    )
    said = igr.compare(product_loss, START, 0.01, 20, (0, 1), igr.methods.heavy_ball(0.5))
    np.testing.assert_allclose(seen.distance[1], said.distance[1], rtol=1e-6, atol=1e-12)
    assert 4 * seen.distance[1][-1] < seen.distance[0][-1]


def test_differences_are_those_of_gradients_over_the_step():
    """-g - (1/2)(g - g(theta - h g)), by a flow of that field in numpy's precision of its own."""
    h = 0.05
    result = igr.compare(product_loss, START, h, 20, ("differences",), sharpness=False)
    g = jax.grad(product_loss)
    field = lambda t, w, args: -g(w) - (g(w) - g(w - h * g(w))) / 2
    solution = igr.flow(field, START, 20 * h)
    np.testing.assert_allclose(result.flows["differences"][-1], solution.ys[-1], rtol=1e-8)
    with pytest.raises(ValueError, match=r"orders must be counts or 'differences', .*; got 'two'"):
        igr.compare(product_loss, START, h, 5, ("two",))


@pytest.mark.slow
def test_kinks_decide_what_is_trusted_and_cost_no_more():
    """The derivatives explain the gradient's change for tanh and not for ReLU, by finite steps."""
    results = {}
    for name, activation in (("tanh", jnp.tanh), ("relu", jax.nn.relu)):
        loss, params = network(activation)
        orders = ("differences",) if name == "relu" else (1,)
        seen = igr.compare(loss, params, 0.2, 60, orders, record_every=20)
        results[name] = seen
        p = jax.tree.map(lambda x: x[0], seen.discrete.params)
        g = jax.grad(loss)
        after = jax.tree.map(lambda x, d: x - 0.2 * d, p, g(p))
        change = jax.tree.map(jnp.subtract, g(after), g(p))
        along = jax.jvp(g, (p,), (jax.tree.map(jnp.subtract, after, p),))[1]
        rest = optax.tree.norm(optax.tree.sub(change, along)) / optax.tree.norm(change)
        np.testing.assert_allclose(seen.remainder[0], rest, rtol=1e-6)
        assert all(np.isfinite(d).all() for d in seen.distance.values())
        assert all(np.isfinite(e) for e in seen.solver_error.values())
    assert results["tanh"].remainder.max() < 0.3 < results["relu"].remainder.max()


@pytest.mark.slow
def test_a_kinked_flow_takes_no_more_steps_than_are_stated():
    """|x| and its kink at 0: an adaptive solver halves its step without end."""
    field = lambda t, x, args: -jnp.sign(x) + 0 * t
    h, steps = 0.1, 200
    with pytest.warns(igr.FlowStopped, match="maximum number of solver steps"):
        igr.flow(field, jnp.array([1.0]), h * steps, max_steps=1000)
    solution = igr.flow(field, jnp.array([1.0]), h * steps, optimizer_step=h)
    assert solution.stats["num_steps"] <= 100 + 1.5 * steps + 1
    assert np.abs(solution.ys[-1]) < 2 * h


@pytest.mark.slow
def test_a_flow_whose_adjoint_forbids_events():
    import diffrax

    end = lambda x: igr.flow(lambda t, y, args: -y, x, 1.0, adjoint=diffrax.BacksolveAdjoint()).ys[
        -1
    ]
    np.testing.assert_allclose(jax.grad(end)(2.0), np.exp(-1), rtol=1e-8)


@pytest.mark.slow
def test_adam_on_relu_is_followed_to_the_end():
    """Units that come on have a second moment of 0: derivatives fail there, whole steps do not."""
    loss, params = network(jax.nn.relu)
    params[0] = params[0].at[:, :4].set(-jnp.abs(params[0][:, :4]))
    h, steps = 0.01, 40
    seen = igr.compare(
        loss, params, h, steps, (0, "differences"), igr.methods.adam(0.5, 0.9), burn_in=8,
        record_every=10, sharpness=False,
    )  # fmt: skip
    assert seen.remainder.max() > 0.5
    assert all(np.isfinite(d).all() for d in seen.distance.values())
    assert 4 * seen.distance["differences"][-1] < seen.distance[0][-1] < seen.travelled[-1]
    assert all(np.isfinite(e) for e in seen.solver_error.values())
    nu = jax.tree.leaves(seen.kept["differences"]["nu"])
    real = jax.tree.leaves(seen.discrete.observed["nu"])
    for a, b in zip(nu, real, strict=True):
        np.testing.assert_allclose(a[-1], b[-1], rtol=0.1, atol=1e-4)


@pytest.mark.slow
def test_differences_of_adams_steps_are_of_order_one():
    """Distances from the real optimizer fall with the square of the step."""
    loss = lambda w: jnp.sum(jnp.cosh(w)) + w[0] * w[1]
    ends = []
    for h in (0.02, 0.01):
        seen = igr.compare(
            loss, START, h, round(0.4 / h), ("differences",), burn_in=40, sharpness=False,
            optimizer=lambda h: optax.adam(h, 0.5, 0.99),
        )  # fmt: skip
        ends.append(seen.distance["differences"][-1] / seen.travelled[-1])
    assert ends[0] < 1e-2
    assert 3 < ends[0] / ends[1] < 5


@pytest.mark.slow
def test_a_jump_of_the_field_does_not_stop_its_flow():
    """In single precision a jump asks for steps shorter than rounding allows: it is passed."""
    field = lambda t, x, args: jnp.where(x > 0.5, -30.0, -1.0) * jnp.ones_like(x)
    solution = igr.flow(field, jnp.array([1.0], jnp.float32), 0.4, optimizer_step=0.01)
    exact = 0.5 - (0.4 - 0.5 / 30)
    np.testing.assert_allclose(solution.ys[-1], [exact], atol=1e-4)
    blows_up = lambda t, x, args: x**2
    with pytest.warns(igr.FlowStopped, match="shrank to nothing|left the finite numbers"):
        igr.flow(blows_up, jnp.array([1.0], jnp.float32), 2.0, optimizer_step=0.01)
