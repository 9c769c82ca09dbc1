"""Fields of SGD in epochs: against closed forms, and against all permutations of real epochs."""

from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sympy

import igr
from igr.backward_error import modified_equation
from tests.flows.chebyshev import NODES, interpolation
from tests.flows.chebyshev import slope as slope_of

X, Y = sympy.symbols("x y")
BATCH = sympy.symbols("a b")
FORM = BATCH[0] * X**3 * Y + BATCH[1] * X**2 * Y**2 + X**4 / 3 + BATCH[0] * X * Y + Y**2
DATA = np.array([[1.0, -0.5], [0.25, 2.0], [-0.75, 1.5], [0.5, 0.125]])
H = 0.05


@pytest.fixture(scope="module")
def value_fn():
    function = sympy.lambdify((X, Y, *BATCH), FORM, "jax")
    return lambda p, batch: function(p["x"], p["y"], batch["a"], batch["b"])


@pytest.fixture(scope="module")
def batches():
    return {"a": jnp.array(DATA[:, 0]), "b": jnp.array(DATA[:, 1])}


PARAMS = {"x": jnp.array(0.7), "y": jnp.array(-0.4)}


@pytest.mark.parametrize(
    ("method", "order"),
    [
        (igr.methods.reshuffled_sgd(4), 1),
        pytest.param(igr.methods.reshuffled_sgd(4), 2, marks=pytest.mark.slow),
        (igr.methods.cyclic_sgd((2, 0, 3, 1)), 2),
    ],
    ids=["random-1", "random-2", "fixed-2"],
)
def test_against_the_closed_form(method, order, value_fn, batches):
    equation = modified_equation(method, order)
    losses = [FORM.subs(dict(zip(BATCH, map(sympy.Rational, row), strict=True))) for row in DATA]
    exact = equation.on(losses, (X, Y), sympy.Rational(1, 20))
    at = {X: sympy.Rational(7, 10), Y: -sympy.Rational(2, 5)}
    expected = [float(e.subs(at)) for e in exact]
    field = jax.jit(igr.vector_field(equation, value_fn, H, batches))(0.0, PARAMS, None)
    np.testing.assert_allclose([field["x"], field["y"]], expected, rtol=1e-12)


def test_modified_loss(value_fn, batches):
    equation = modified_equation(igr.methods.reshuffled_sgd(4), 1)
    loss = igr.modified_value_fn(equation, value_fn, H, batches)
    value, gradient = jax.jit(jax.value_and_grad(loss))(PARAMS)
    field = igr.vector_field(equation, value_fn, H, batches)(0.0, PARAMS, None)
    for name in ("x", "y"):
        assert float(field[name]) == pytest.approx(-float(gradient[name]), rel=1e-12)
    losses = [FORM.subs(dict(zip(BATCH, map(sympy.Rational, row), strict=True))) for row in DATA]
    exact = equation.modified_loss().on(losses, (X, Y), sympy.Rational(1, 20))
    expected = exact.subs({X: sympy.Rational(7, 10), Y: -sympy.Rational(2, 5)})
    assert float(value) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        igr.methods.reshuffled_sgd(4),
        pytest.param(igr.methods.cyclic_sgd(4), marks=pytest.mark.slow),
    ],
)
def test_the_gradient_part_is_compiled_to_its_loss(method, value_fn, batches):
    """At h^2: contractions that share a batch, and those of the whole loss."""
    part = modified_equation(method, 2).gradient_part()
    loss = igr.modified_value_fn(part, value_fn, H, batches)
    value, gradient = jax.jit(jax.value_and_grad(loss))(PARAMS)
    losses = [FORM.subs(dict(zip(BATCH, map(sympy.Rational, row), strict=True))) for row in DATA]
    exact = part.modified_loss().on(losses, (X, Y), sympy.Rational(1, 20))
    at = {X: sympy.Rational(7, 10), Y: -sympy.Rational(2, 5)}
    assert float(value) == pytest.approx(float(exact.subs(at)), rel=1e-12)
    for name, p in (("x", X), ("y", Y)):
        expected = float(sympy.diff(exact, p).subs(at))
        assert float(gradient[name]) == pytest.approx(expected, rel=1e-12)


# Real epochs of a network


@pytest.fixture(scope="module")
def network():
    keys = jax.random.split(jax.random.key(3), 4)
    params = {
        "in": 0.7 * jax.random.normal(keys[0], (3, 4)),
        "out": 0.7 * jax.random.normal(keys[1], (4, 2)),
    }
    batches = (
        jax.random.normal(keys[2], (5, 2, 3)),
        2 * jax.random.normal(keys[3], (5, 2, 2)),
    )

    def value_fn(p, batch):
        inputs, targets = batch
        return jnp.mean((jnp.tanh(inputs @ p["in"]) @ p["out"] - targets) ** 2)

    return value_fn, params, batches


def epochs(value_fn, params, batches, h, orders):
    """The params after an epoch in each of the orders."""

    def run(order):
        def step(p, k):
            batch = jax.tree.map(lambda x: x[k], batches)
            return optax.tree.add_scale(p, -h, jax.grad(value_fn)(p, batch)), None

        return jax.lax.scan(step, params, order)[0]

    return jax.vmap(run)(orders)


def slope(method, orders, network, order):
    """Of the error after one epoch, against h."""
    value_fn, params, batches = network
    m = len(orders[0])
    batches = jax.tree.map(lambda x: x[:m], batches)
    equation = modified_equation(method, order)

    @jax.jit
    def error(h):
        reached = epochs(value_fn, params, batches, h, jnp.array(orders))
        mean = jax.tree.map(lambda x: jnp.mean(x, axis=0), reached)
        field = igr.vector_field(equation, value_fn, h, batches)

        def stage(carry, tableau):
            start, now, total = carry
            ahead, weight = tableau
            k = field(0.0, now, None)
            total = optax.tree.add_scale(total, weight * dt, k)
            return (start, optax.tree.add_scale(start, ahead * dt, k), total), None

        def rk4(p, _):
            tableau = jnp.array([0.5, 0.5, 1.0, 0.0]), jnp.array([1.0, 2.0, 2.0, 1.0]) / 6
            return jax.lax.scan(stage, (p, p, p), tableau)[0][2], None

        dt = m * h / 6
        flow, _ = jax.lax.scan(rk4, params, length=6)
        return optax.tree.norm(optax.tree.sub(flow, mean))

    hs = 0.006 * 2.0 ** -np.linspace(0.0, 2.0, 4)
    errors = np.array(jax.lax.map(error, jnp.array(hs)))
    return slope_of(hs, errors)


@pytest.mark.parametrize("order", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 1))])
def test_order_of_the_mean_of_all_permutations(network, order):
    orders = list(permutations(range(4)))
    found = slope(igr.methods.reshuffled_sgd(4), orders, network, order)
    assert found == pytest.approx(order + 2, abs=0.1)


@pytest.mark.parametrize("order", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 2))])
def test_order_of_a_fixed_order(network, order):
    found = slope(igr.methods.cyclic_sgd((3, 1, 4, 0, 2)), [(3, 1, 4, 0, 2)], network, order)
    assert found == pytest.approx(order + 2, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("order", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_global_order_of_the_mean(order):
    """Of many epochs, each over all permutations: their spread changes nothing up to h^2.

    In one dimension the mean of a function of the iterate is followed exactly, one epoch at a time.
    """
    batches = jnp.array([-0.8, 0.1, 0.5])

    def value(x, a):
        return x**4 / 8 + x**2 / 2 - 0.4 * x + a * (x - x**3 / 3)

    gradients = [lambda x, a=a: x**3 / 2 + x - 0.4 + a * (1 - x**2) for a in np.array(batches)]
    equation = modified_equation(igr.methods.reshuffled_sgd(3), order)

    @jax.jit
    def flow(h):
        field = igr.vector_field(equation, value, h, batches)
        return igr.flow(jax.vmap(field, (None, 0, None)), jnp.array(NODES[starts]), 1.0).ys[0]

    epochs, errors, starts = np.array([16, 32, 64]), [], [2, 13, 20, 26, 37]
    for count in epochs:
        h = 1 / (3 * count)
        after_one = 0
        for permutation in permutations(range(3)):
            x = NODES
            for k in permutation:
                x = x - h * gradients[k](x)
            after_one = after_one + interpolation(x) / 6
        mean = (np.linalg.matrix_power(after_one, count) @ NODES)[starts]
        errors.append(np.abs(mean - flow(h)).max())
    assert slope_of(1 / epochs, errors) == pytest.approx(order + 1, abs=0.15)


def test_integer_leaves_get_zeros(network):
    value_fn, params, batches = network
    for method in (igr.methods.reshuffled_sgd(5), igr.methods.cyclic_sgd(5)):
        field = igr.vector_field(modified_equation(method, 0), value_fn, 0.01, batches)
        out = field(0.0, {**params, "step": jnp.array(3)}, None)
        assert int(out["step"]) == 0


def test_single_precision_stays(network):
    value_fn, params, batches = network
    low = jax.tree.map(lambda x: x.astype(jnp.float32), (params, batches))
    for method in (igr.methods.reshuffled_sgd(5), igr.methods.cyclic_sgd(5)):
        field = igr.vector_field(modified_equation(method, 1), value_fn, 0.01, low[1])
        out = jax.eval_shape(lambda p, field=field: field(0.0, p, None), low[0])
        assert {x.dtype for x in jax.tree.leaves(out)} == {jnp.dtype("float32")}


def test_bad_input(value_fn, batches):
    equation = modified_equation(igr.methods.reshuffled_sgd(3), 1)
    with pytest.raises(ValueError, match="batches must be 3 in number; got 4"):
        igr.vector_field(equation, value_fn, H, batches)
    with pytest.raises(ValueError, match="needs batches"):
        igr.vector_field(equation, value_fn, H)
    with pytest.raises(ValueError, match="the leaves of batch must agree"):
        igr.vector_field(equation, value_fn, H, {"a": jnp.ones(3), "b": jnp.ones(2)})
    with pytest.raises(ValueError, match="h must be positive"):
        igr.vector_field(equation, value_fn, -1.0, batches)
    plain = modified_equation(igr.methods.gradient_descent(), 1)
    with pytest.raises(ValueError, match="batches is for SGD in epochs"):
        igr.vector_field(plain, value_fn, H, batches)
    with pytest.raises(TypeError, match=r"takes one batch a step.*run_epochs"):
        igr.compare(lambda p: p["x"] ** 2, PARAMS, H, 3, method=igr.methods.reshuffled_sgd(4))
    with pytest.raises(ValueError, match="open symbol m"):
        igr.vector_field(
            modified_equation(igr.methods.cyclic_sgd(sympy.Symbol("m")), 1), value_fn, H, batches
        )
    with pytest.raises(igr.NotAGradientError, match=r"follows no modified loss at h\^1"):
        igr.modified_value_fn(modified_equation(igr.methods.cyclic_sgd(4), 1), value_fn, H, batches)
