"""Compiled once, and never stale: in the tracer itself, and in every public function."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import igr
from igr import compiled as module
from igr.compiled import PROGRAMS_KEPT, compiled, small_programs, traced
from igr.curvature import (
    fisher_product,
    gauss_newton_product,
    hessian_product,
    sgd_stability,
    sharpness,
    spectral_density,
    top_eigenpairs,
    trace,
)
from igr.diagnostics import loss_surface_slope, noise_robustness

W = jnp.array([0.5, -0.25])
POINTS = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
METHOD = igr.methods.gradient_descent()


@compiled
def _value(loss, params):
    return loss(params)


@compiled
def _gradient(loss, params):
    return jax.grad(lambda p: loss(p))(params)


class Holder:
    """Something with an attribute, which a loss reads."""

    c = 1.0


# Everything below is linear in c, the one thing that changes, or read as a ratio to it.
def _losses(how):
    """A loss that reads c, how to set it, and the same for one example."""
    holder = Holder()
    box = {"c": jnp.asarray(1.0)}

    def read():
        return {"attribute": lambda: holder.c, "array": lambda: box["c"]}[how]()

    def put(c):
        holder.c, box["c"] = c, jnp.asarray(c)

    loss = lambda w: read() * jnp.sum(w**2) / 2
    example = lambda w, x: read() * jnp.sum((w * x) ** 2) / 2
    return loss, example, put


def _product(f, *args, **kwargs):
    return f(*args, **kwargs)(W)


def _compared(found):
    """What each of the programs of a comparison says: the run, its flow, and its sharpness."""
    return np.array([found.discrete.value[0], found.sharpness[0], *(found.flows[1][-1] - W)])


PUBLIC = {
    "run": lambda f, e: igr.run(optax.sgd(1e-3), f, W, 2).value[0],
    "run_epochs": lambda f, e: (
        igr.flows.run_epochs(optax.sgd(1e-5), e, W, POINTS, jnp.array([[0, 1, 2]]))[1] - W
    ),
    "compare": lambda f, e: _compared(igr.compare(f, W, 1e-6, 3, orders=(1,))),
    "flow": lambda f, e: (
        igr.flow(igr.vector_field(igr.modified_equation(METHOD, 1), f, 1e-6), W, 1e-6).ys[0] - W
    ),
    "vector_field": lambda f, e: igr.vector_field(igr.modified_equation(METHOD, 0), f, 0.1)(
        0.0, W, None
    ),
    "modified_value_fn": lambda f, e: igr.modified_value_fn(
        igr.modified_equation(METHOD, 1), f, 1e-9
    )(W),
    "observed_order": lambda f, e: np.sqrt(
        igr.observed_order(METHOD, f, W, 0, hs=(1e-3, 5e-4)).errors
    ),
    "certify": lambda f, e: np.sqrt(
        igr.flows.observed_order(METHOD, f, W, 0, hs=(1e-3, 5e-4), optimizer=optax.sgd).errors
    ),
    "modified_field_along": lambda f, e: igr.flows.modified_field_along(
        igr.run(optax.sgd(1e-6), f, W, 3), 0
    ).field[0],
    "hessian_product": lambda f, e: _product(hessian_product, f, W),
    "hessian_product, batch": lambda f, e: _product(hessian_product, e, W, POINTS),
    "hessian_product, chunks": lambda f, e: _product(hessian_product, e, W, POINTS, chunk=2),
    "fisher_product": lambda f, e: jnp.sqrt(jnp.abs(_product(fisher_product, e, W, POINTS))),
    "gauss_newton_product": lambda f, e: _product(
        gauss_newton_product, lambda w: w, lambda out: f(out), W
    ),
    "sharpness": lambda f, e: sharpness(f, W).value,
    "top_eigenpairs": lambda f, e: top_eigenpairs(jax.grad(f), W, 1).values[0],
    "trace": lambda f, e: trace(jax.grad(f), W).value,
    "trace of a function": lambda f, e: (
        trace(lambda v: v, W, function=lambda x: f(jnp.ones(2)) * x, num_products=2).value
    ),
    "spectral_density": lambda f, e: jnp.max(
        spectral_density(jax.grad(f), W, num_products=2).nodes
    ),
    "sgd_stability": lambda f, e: sgd_stability(e, W, POINTS, 1e-3, 1).sharpness,
    "loss_surface_slope": lambda f, e: loss_surface_slope(f, W),
    "noise_robustness": lambda f, e: noise_robustness(f, W, [0.0], draws=2).mean[0],
    "stochastic_flow": lambda f, e: (
        igr.flows.stochastic_flow(
            igr.flows.stochastic_field(
                igr.modified_equation(igr.methods.sgd_with_replacement(1), 0), e, 1e-6, POINTS
            ),
            W,
            1e-6,
            key=jax.random.key(0),
        ).ys[0]
        - W
    ),
}


LONGER = (
    "stochastic_flow", "trace of a function", "spectral_density", "sgd_stability", "flow",
    "top_eigenpairs", "certify", "noise_robustness",
)  # fmt: skip
ARRAYS = ("run", "vector_field", "hessian_product", "hessian_product, batch")


@pytest.mark.parametrize(
    ("name", "how"),
    [
        pytest.param(
            name,
            how,
            marks=()
            if name not in LONGER and (how == "attribute" or name in ARRAYS)
            else pytest.mark.slow,
        )
        for name in PUBLIC
        for how in ("attribute", "array")
    ],
)
def test_what_a_loss_reads_is_read_at_every_call(name, how, compilations):
    """One function object, whose attribute or array has changed: ten times the answer of one.

    And where it is a number or an array that changed, nothing is compiled for it.
    """
    call = PUBLIC[name]
    loss, example, put = _losses(how)
    put(1.0)
    before = np.asarray(call(loss, example))
    put(10.0)
    found = []
    count = compilations(lambda: found.append(np.asarray(call(loss, example))))
    np.testing.assert_allclose(found[0], 10 * before, rtol=2e-3)
    assert np.all(before != 0)
    assert count == 0


@pytest.mark.slow
def test_a_monitor_reads_at_every_call():
    loss, example, put = _losses("attribute")
    monitor = igr.Monitor(
        {"slope": "slope", "sharpness": "sharpness", "own": lambda w, _: loss(w)},
        example_loss_fn=example,
    )
    put(1.0)
    before = monitor(W, POINTS)
    put(10.0)
    after = monitor(W, POINTS)
    for name in ("slope", "sharpness", "own"):
        np.testing.assert_allclose(after[name], 10 * before[name], rtol=1e-2)
    assert monitor.compilations == 1


def test_the_program_is_that_of_what_was_traced(compilations):
    """A number that is close is another number, and another operation another program."""
    for c in (1.0, 1.0 + 2e-16, 3):
        assert _value(traced(lambda p, c=c: c * p[0], W), W) == c * W[0]
    assert _value(traced(lambda p: jnp.sin(p[0]), W), W) == jnp.sin(W[0])
    assert _value(traced(lambda p: jnp.cos(p[0]), W), W) == jnp.cos(W[0])
    n = 2
    power = lambda p: jnp.sum(p**n)
    assert _value(traced(power, W), W) == np.sum(W**2)
    n = 3
    assert _value(traced(power, W), W) == np.sum(W**3)
    # inside a loop numbers stay in the program, to the last bit
    for c in (0.1, 0.1 + 1e-17, 0.1 + 2e-17, np.nextafter(0.1, 1)):
        looped = lambda p, c=c: jax.lax.fori_loop(0, 1, lambda _, x: c * x, p[0])
        assert _value(traced(looped, W), W) == c * W[0]
    flag = True
    branch = lambda p: p[0] if flag else p[1]
    assert _value(traced(branch, W), W) == W[0]
    flag = False
    assert _value(traced(branch, W), W) == W[1]


def test_derivative_rules_are_read_at_every_call(compilations):
    k = 1.0

    @jax.custom_jvp
    def forward(x):
        return x**2

    forward.defjvp(lambda primals, tangents: (primals[0] ** 2, k * primals[0] * tangents[0]))

    @jax.custom_vjp
    def backward(x):
        return x**2

    backward.defvjp(lambda x: (x**2, x), lambda x, g: (k * x * g,))
    for f in (forward, backward):
        loss = lambda p, f=f: jnp.sum(f(p))
        for k in (1.0, 5.0):  # the rules read it
            np.testing.assert_array_equal(_gradient(traced(loss, W), W), k * W)
        assert compilations(lambda: _gradient(traced(loss, 2 * W), 2 * W)) <= 1  # noqa: B023
        assert compilations(lambda: _gradient(traced(loss, W), W)) == 0  # noqa: B023


@pytest.mark.parametrize(
    "activation",
    [
        jax.nn.relu,
        jax.nn.gelu,
        jax.nn.softplus,
        jax.nn.softmax,
        jax.nn.log_softmax,
        lambda x: jax.checkpoint(jnp.sin)(x),
        lambda x: jnp.where(x > 0, x, 0.0),
        lambda x: jax.lax.scan(lambda c, y: (0.5 * c + y, c), 0.0, x)[1],
        lambda x: jax.lax.cond(x[0] > 0, jnp.sin, jnp.cos, x),
        lambda x: jax.lax.while_loop(lambda v: v[0] < 1, lambda v: 2 * v, jnp.abs(x)),
        lambda x: x + jax.random.normal(jax.random.key(0), x.shape),
    ],
)
def test_what_networks_are_made_of_is_compiled_once(activation, compilations):
    loss = lambda: traced(lambda p: jnp.sum(activation(p) ** 2), W)
    first = loss()
    value = _value(first, W)
    np.testing.assert_allclose(value, jnp.sum(activation(W) ** 2), rtol=1e-12)
    assert first.program == loss().program
    assert compilations(lambda: _value(loss(), W)) == 0


def test_a_result_that_is_a_number_is_an_array():
    found = traced(lambda p: (jnp.zeros(()), 1, "name", 2.5), W)(W)
    assert [getattr(x, "shape", x) for x in found] == [(), (), "name", ()]


def test_a_callback_calls_what_is_there_now():
    c = 1.0
    shape = jax.ShapeDtypeStruct((), W.dtype)
    loss = lambda p: jax.pure_callback(lambda x: np.asarray(c * x), shape, p[0])
    for c in (1.0, 10.0):
        assert _value(traced(loss, W), W) == c * W[0]


def test_works_under_transformations():
    scales = jnp.array([1.0, 3.0])
    run = lambda c: igr.run(optax.sgd(0.1), lambda w: c * jnp.sum(w**2) / 2, W, 2).value[-1]
    by_hand = lambda c: c * (1 - 0.1 * c) ** 4 * jnp.sum(W**2) / 2
    np.testing.assert_allclose(jax.vmap(run)(scales), by_hand(scales))
    slope = (1 - 0.1 * 3) ** 3 * (1 - 0.1 * 3 - 4 * 0.1 * 3) * np.sum(W**2) / 2
    np.testing.assert_allclose(jax.grad(run)(3.0), slope)


@pytest.mark.slow
def test_works_under_other_transformations():
    scales = jnp.array([1.0, 3.0])
    run = lambda c: igr.run(optax.sgd(0.1), lambda w: c * jnp.sum(w**2) / 2, W, 2).value[-1]
    np.testing.assert_allclose(jax.jit(run)(3.0), 3 * (1 - 0.1 * 3) ** 4 * jnp.sum(W**2) / 2)
    rated = lambda h: igr.run(optax.sgd(h), lambda w: jnp.sum(w**2) / 2, W, 2).value[-1]
    np.testing.assert_allclose(
        jax.vmap(rated)(scales), (1 - scales) ** 4 * jnp.sum(W**2) / 2, atol=1e-15
    )
    np.testing.assert_allclose(jax.grad(rated)(0.1), -4 * 0.9**3 * jnp.sum(W**2) / 2)
    sharp = lambda c: sharpness(lambda w: c * jnp.sum(w**2) / 2, W).value
    np.testing.assert_allclose(jax.vmap(sharp)(scales), scales, rtol=1e-3)


def test_dtypes_and_the_precision_of_the_moment_are_told_apart():
    loss = lambda p: jnp.sum(p**2)
    for dtype in (jnp.float32, jnp.float64, jnp.bfloat16):
        w = W.astype(dtype)
        assert _value(traced(loss, w), w).dtype == dtype
    with jax.enable_x64(False):
        w = jnp.asarray(np.asarray(W, np.float32))
        assert _value(traced(loss, w), w).dtype == jnp.float32


def test_no_more_programs_than_are_kept(monkeypatch):
    monkeypatch.setattr(module, "_PROGRAMS", module._Recent(3))
    for n in range(6):
        _value(traced(partial(lambda n, p: jnp.sum(p**n), n + 2), W), W)
    assert len(module._PROGRAMS) == 3
    assert PROGRAMS_KEPT * 100 < 65_530 / 3


def test_a_small_program_is_compiled_fast_and_a_large_one_well(monkeypatch):
    """By what it is given and what it makes; inside another it is compiled with that."""
    # Of the XLA here at least one is known.
    assert small_programs.fast_to_compile(False) != small_programs.fast_to_compile(True)
    asked = []
    monkeypatch.setattr(
        module, "fast_to_compile", lambda scalars: asked.append(scalars) or {"xla_none": True}
    )
    with pytest.raises(Exception, match="No such compile option: 'xla_none'"):
        _value(traced(lambda w: jnp.sum(w**4) / 41, W), W)
    made_inside = traced(lambda w: jnp.sum(jnp.arange(1e7) ** 0.5) * w[0], W)
    assert _value(made_inside, W) > 0
    many = jnp.ones(small_programs.NUMBERS + 1)
    assert _value(traced(lambda w: jnp.sum(w**2) / 43, many), many) > 0
    inside = jax.jit(lambda w: _value(traced(lambda v: jnp.sum(v**2) / 47, W), W) + w[0])
    np.testing.assert_allclose(inside(W), jnp.sum(W**2) / 47 + W[0])
    for count in (small_programs.REGISTER, small_programs.REGISTER + 1):
        w = jnp.ones(count)
        with pytest.raises(Exception, match="No such compile option: 'xla_none'"):
            _value(traced(lambda w: jnp.sum(w**4) / 53, w), w)
        assert asked[-1] is (count == small_programs.REGISTER)
