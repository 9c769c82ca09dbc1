"""Compiled fields against closed forms, dense derivative tensors, and other frameworks' params."""

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sympy
from flax import linen, nnx
from jax.flatten_util import ravel_pytree

import igr
from igr.backward_error.methods import z
from tests.flows.conftest import POLYNOMIAL, X, Y
from tests.quick import quick

METHODS = {
    "gradient descent": igr.methods.gradient_descent(),
    "heavy ball": igr.methods.heavy_ball(0.5),
    "Nesterov": igr.methods.nesterov(0.3),
    "a gradient to all orders": igr.methods.linear_memory((sympy.exp(z) - 1) / (z * (1 - z / 3))),
}


@pytest.mark.parametrize("highest", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", quick(list(METHODS), "heavy ball"))
def test_field_is_the_closed_form(polynomial, name, highest):
    equation, h = igr.modified_equation(METHODS[name], highest), sympy.Rational(1, 7)
    at = {X: sympy.Rational(7, 10), Y: -sympy.Rational(4, 10)}
    for order in range(highest + 1):
        truncated = equation.truncate(order)
        exact = [float(f.subs(at)) for f in truncated.on(POLYNOMIAL, (X, Y), h)]
        field = jax.jit(igr.vector_field(truncated, polynomial.value_fn, 1 / 7))
        got = field(0.0, polynomial.params, None)
        np.testing.assert_allclose([got["x"], got["y"]], exact, rtol=1e-12)


def test_field_is_the_dense_formula_on_a_network(tanh_network):
    """-g - h/2 Hg - h^2 (1/3 HHg + 1/12 T[g, g]) with the tensors formed in full."""
    flat, unravel = ravel_pytree(tanh_network.params)
    loss = lambda v: tanh_network.value_fn(unravel(v))
    g, H = jax.jit(jax.grad(loss))(flat), jax.jit(jax.hessian(loss))(flat)
    T = jax.jit(jax.jacfwd(jax.hessian(loss)))(flat)
    h = 0.3
    dense = -g - h / 2 * H @ g - h**2 * (H @ H @ g / 3 + T @ g @ g / 12)
    equation = igr.modified_equation(igr.methods.gradient_descent(), 2)
    field = jax.jit(igr.vector_field(equation, tanh_network.value_fn, h))
    got = field(0.0, tanh_network.params, None)
    assert jax.tree.structure(got) == jax.tree.structure(tanh_network.params)
    np.testing.assert_allclose(ravel_pytree(got)[0], dense, rtol=1e-12, atol=1e-14)


def test_field_under_vmap_grad_and_traced_step(tanh_network):
    equation = igr.modified_equation(igr.methods.gradient_descent(), 1)

    @jax.jit
    def length(h):
        f = igr.vector_field(equation, tanh_network.value_fn, h)(0.0, tanh_network.params)
        return sum(jnp.sum(x**2) for x in jax.tree.leaves(f))

    hs = jnp.array([0.1, 0.2])
    np.testing.assert_allclose(jax.vmap(length)(hs), [length(0.1), length(0.2)], rtol=1e-12)
    difference = (length(0.1 + 1e-6) - length(0.1 - 1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(length)(0.1), difference, rtol=1e-6)


def test_modified_value_is_the_paper_formula(tanh_network):
    equation = igr.modified_equation(igr.methods.gradient_descent(), 1)
    modified = igr.modified_value_fn(equation, tanh_network.value_fn, 0.2)
    gradient = ravel_pytree(jax.grad(tanh_network.value_fn)(tanh_network.params))[0]
    expected = tanh_network.value_fn(tanh_network.params) + 0.2 / 4 * gradient @ gradient
    np.testing.assert_allclose(modified(tanh_network.params), expected, rtol=1e-13)


@pytest.mark.slow
def test_modified_value_of_a_gradient_to_all_orders(polynomial):
    equation = igr.modified_equation(METHODS["a gradient to all orders"], 4)
    modified = igr.modified_value_fn(equation, polynomial.value_fn, 1 / 7)
    closed = equation.modified_loss().on(POLYNOMIAL, (X, Y), sympy.Rational(1, 7))
    exact = closed.subs({X: sympy.Rational(7, 10), Y: -sympy.Rational(4, 10)})
    np.testing.assert_allclose(modified(polynomial.params), float(exact), rtol=1e-13)


def test_no_modified_value_where_there_is_no_gradient(polynomial):
    equation = igr.modified_equation(igr.methods.gradient_descent(), 2)
    with pytest.raises(igr.NotAGradientError, match="no modified loss at h\\^2"):
        igr.modified_value_fn(equation, polynomial.value_fn, 0.1)


def _linen(x):
    module = linen.Dense(3)
    params = module.init(jax.random.key(0), x)
    return params, lambda p: jnp.mean(jnp.tanh(module.apply(p, x)) ** 2)


def _nnx(x):
    graph, state = nnx.split(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    return state, lambda s: jnp.mean(jnp.tanh(nnx.merge(graph, s)(x)) ** 2)


def _equinox(x):
    network = eqx.nn.MLP(2, 3, 4, 1, activation=jnp.tanh, key=jax.random.key(1))
    return network, lambda m: jnp.mean(jax.vmap(m)(x) ** 2)


def _haiku(x):
    transformed = hk.without_apply_rng(hk.transform(lambda x: jnp.tanh(hk.Linear(3)(x))))
    params = transformed.init(jax.random.key(2), x)
    return params, lambda p: jnp.mean(transformed.apply(p, x) ** 2)


def _mixed(x):
    with_integers = {"w": jnp.ones((2, 3)), "count": jnp.array(3), "name": "net"}
    return with_integers, lambda p: jnp.mean(jnp.tanh(x @ p["w"]) ** 2) * p["count"]


FRAMEWORKS = {
    "linen": _linen, "nnx": _nnx, "equinox": _equinox, "haiku": _haiku, "mixed": _mixed
}  # fmt: skip


def _of_framework(name):
    """The params of a network, and its loss."""
    return FRAMEWORKS[name](jnp.asarray(np.linspace(-1.0, 1.0, 10).reshape(5, 2)))


@pytest.mark.parametrize("name", quick(list(FRAMEWORKS), "mixed"))
def test_params_of_every_framework(name):
    """One field of order 1 against the dense formula, one discrete step, one short flow."""
    params, value_fn = _of_framework(name)
    dynamic, static = eqx.partition(params, eqx.is_inexact_array)
    dynamic = jax.tree.map(lambda x: x.astype(jnp.float64), dynamic)
    params = eqx.combine(dynamic, static)
    flat, unravel = ravel_pytree(dynamic)
    loss = lambda v: value_fn(eqx.combine(unravel(v), static))
    g, H = jax.jit(jax.grad(loss))(flat), jax.jit(jax.hessian(loss))(flat)
    equation = igr.modified_equation(igr.methods.gradient_descent(), 1)
    field = igr.vector_field(equation, value_fn, 0.1)
    got = eqx.filter(eqx.filter_jit(field)(0.0, params, None), eqx.is_inexact_array)
    np.testing.assert_allclose(ravel_pytree(got)[0], -g - 0.05 * H @ g, rtol=1e-11, atol=1e-13)
    ended = igr.flow(field, params, 0.1)
    assert jax.tree.structure(ended.ys) == jax.tree.structure(params)
    step = -flat + ravel_pytree(eqx.filter(ended.ys, eqx.is_inexact_array))[0][: flat.size]
    assert np.linalg.norm(step + 0.1 * g) < 0.1 * np.linalg.norm(0.1 * g)
    import optax

    trajectory = igr.run(optax.sgd(0.1), value_fn, params, 1)
    assert jax.tree.structure(trajectory.last) == jax.tree.structure(params)
    after = ravel_pytree(eqx.filter(trajectory.last, eqx.is_inexact_array))[0]
    np.testing.assert_allclose(after, flat - 0.1 * g, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("kind", quick(["linen", "nnx", "equinox", "haiku"], "nnx"))
def test_observed_order_on_params_of_every_framework(kind):
    params, value_fn = _of_framework(kind)
    double = jax.tree.map(lambda x: x.astype(jnp.float64) if eqx.is_inexact_array(x) else x, params)
    slope = igr.observed_order(igr.methods.gradient_descent(), value_fn, double, 1)
    assert abs(slope - 3) < 0.1, (slope, slope.hs, slope.errors)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_every_leaf_keeps_its_dtype(dtype):
    params = {"a": jnp.array([0.5, 1.0], dtype), "b": jnp.array(0.3, jnp.float64)}
    value_fn = lambda p: jnp.sum(jnp.cosh(p["a"].astype(jnp.float64)) * p["b"] ** 2)
    equation = igr.modified_equation(igr.methods.gradient_descent(), 2)
    got = igr.vector_field(equation, value_fn, jnp.asarray(0.1))(0.0, params)
    assert got["a"].dtype == dtype
    assert got["b"].dtype == jnp.float64


@pytest.mark.parametrize("order", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 4))])
def test_field_needs_memory_of_a_few_params_only(order):
    """The temporaries of the compiled field, against a dense Hessian of 80 MB."""
    inputs = jnp.ones((4, 100))
    params = (jnp.full((100, 30), 0.01), jnp.full((30, 5), 0.1))
    value_fn = lambda p: jnp.mean(jnp.tanh(inputs @ p[0]) @ p[1])
    size = 8 * sum(x.size for x in params)
    equation = igr.modified_equation(igr.methods.gradient_descent(), order)
    field = igr.vector_field(equation, value_fn, 0.1)
    compiled = jax.jit(lambda p: field(0.0, p, None)).lower(params).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 20 * size


def test_bad_input(polynomial):
    equation = igr.modified_equation(igr.methods.gradient_descent(), 1)
    value_fn = polynomial.value_fn
    for h in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="h must be positive and finite"):
            igr.vector_field(equation, value_fn, h)
    with pytest.raises(TypeError, match="h must be a number"):
        igr.vector_field(equation, value_fn, "a tenth")
    with pytest.raises(TypeError, match="eq must be a modified equation"):
        igr.vector_field(igr.methods.gradient_descent(), value_fn, 0.1)
    with pytest.raises(TypeError, match="value_fn must be a function of params"):
        igr.vector_field(equation, 3.0, 0.1)
    open_equation = igr.modified_equation(igr.methods.heavy_ball(sympy.Symbol("beta")), 1)
    with pytest.raises(ValueError, match=r"open symbols \(beta\).*eq.subs"):
        igr.vector_field(open_equation, value_fn, 0.1)
    field = igr.vector_field(open_equation.subs({sympy.Symbol("beta"): 0.9}), value_fn, 0.1)
    assert np.isfinite(field(0.0, polynomial.params)["x"])
    with pytest.raises(ValueError, match="params must hold at least one floating array"):
        field(0.0, {"x": jnp.array(1), "y": 2})
