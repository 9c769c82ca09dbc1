"""Runs as one scan against the loop anyone would write."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sympy

import igr
from igr.flows import optimizer_of


def _loop(optimizer, value_fn, params, steps):
    state = optimizer.init(params)
    visited = [params]

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(value_fn)(params), state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(steps):
        params, state = step(params, state)
        visited.append(params)
    return visited


@pytest.mark.parametrize(
    ("steps", "record_every"),
    [(2, 5), *(pytest.param(n, k, marks=pytest.mark.slow) for n, k in ((7, 3), (6, 1), (6, 3)))],
)
def test_run_is_the_loop(tanh_network, steps, record_every):
    optimizer = optax.adam(0.05)
    visited = _loop(optimizer, tanh_network.value_fn, tanh_network.params, steps)
    got = igr.run(
        optimizer, tanh_network.value_fn, tanh_network.params, steps, record_every=record_every
    )
    expected = sorted({*range(0, steps, record_every), steps})
    assert list(got.step) == expected
    for i, n in enumerate(expected):
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-10),
            got.params,
            visited[n],
        )
        np.testing.assert_allclose(got.value[i], tanh_network.value_fn(visited[n]), rtol=1e-10)
        norm = optax.tree.norm(jax.grad(tanh_network.value_fn)(visited[n]))
        np.testing.assert_allclose(got.gradient_norm[i], norm, rtol=1e-10)
    jax.tree.map(np.testing.assert_array_equal, got.last, jax.tree.map(lambda x: x[-1], got.params))


def test_run_goes_on_from_a_state(polynomial):
    optimizer = optax.sgd(0.02, momentum=0.9)
    whole = igr.run(optimizer, polynomial.value_fn, polynomial.params, 8)
    half = igr.run(optimizer, polynomial.value_fn, polynomial.params, 4)
    rest = igr.run(optimizer, polynomial.value_fn, half.last, 4, state=half.state)
    np.testing.assert_allclose(rest.last["x"], whole.last["x"], rtol=1e-14)


def test_run_passes_what_extra_args_need(polynomial):
    """A penalty needs value_fn; without it this raises."""
    optimizer = optax.chain(igr.transforms.add_gradient_norm_penalty(0.01), optax.sgd(0.05))
    got = igr.run(optimizer, polynomial.value_fn, polynomial.params, 1).last
    g = jax.grad(polynomial.value_fn)

    def penalised(p):
        return polynomial.value_fn(p) + 0.01 * optax.tree.norm(g(p), squared=True)

    step = jax.jit(jax.grad(penalised))(polynomial.params)
    np.testing.assert_allclose(got["x"], polynomial.params["x"] - 0.05 * step["x"], rtol=1e-12)


@pytest.mark.parametrize(
    ("method", "optimizer"),
    [
        (igr.methods.gradient_descent(), optax.sgd(0.02)),
        (igr.methods.heavy_ball(0.9), optax.sgd(0.02, momentum=0.9)),
        (igr.methods.nesterov(0.8), optax.sgd(0.02, momentum=0.8, nesterov=True)),
        (igr.methods.ema_momentum(0.7), optax.chain(optax.ema(0.7, debias=False), optax.sgd(0.02))),
    ],
    ids=["gradient descent", "heavy ball", "nesterov", "ema"],
)
def test_methods_are_the_optax_optimizers(polynomial, method, optimizer):
    """The description that is derived from runs the same numbers as optax does."""
    ours = igr.run(optimizer_of(method, 0.02), polynomial.value_fn, polynomial.params, 12)
    theirs = igr.run(optimizer, polynomial.value_fn, polynomial.params, 12)
    np.testing.assert_allclose(ours.params["x"], theirs.params["x"], rtol=1e-12)


def test_memory_does_not_grow_with_steps(tanh_network):
    """The compiled program's temporaries for 10 and for 10,000 steps, ten records of each."""
    params = tanh_network.params
    bytes_of = {}
    for steps in (10, 10_000):
        run = jax.jit(
            lambda p, steps=steps: igr.run(
                optax.sgd(0.01), tanh_network.value_fn, p, steps, record_every=steps // 10
            )
        )
        analysis = run.lower(params).compile().memory_analysis()
        bytes_of[steps] = analysis.temp_size_in_bytes + analysis.output_size_in_bytes
    size = 8 * sum(x.size for x in jax.tree.leaves(params))
    assert bytes_of[10_000] < bytes_of[10] + 8 * size


def test_bad_input(polynomial):
    value_fn, params = polynomial
    sgd = optax.sgd(0.1)
    with pytest.raises(ValueError, match="steps must be at least 1; got 0"):
        igr.run(sgd, value_fn, params, 0)
    with pytest.raises(TypeError, match=r"steps must be an integer; got 2\.5"):
        igr.run(sgd, value_fn, params, 2.5)
    with pytest.raises(ValueError, match="record_every must be at least 1"):
        igr.run(sgd, value_fn, params, 3, record_every=0)
    with pytest.raises(TypeError, match="optimizer must be an optax"):
        igr.run("sgd", value_fn, params, 3)
    with pytest.raises(ValueError, match=r"must return a scalar; got shape \(2,\)"):
        igr.run(sgd, lambda p: jnp.ones(2) * p["x"], params, 3)
    with pytest.raises(ValueError, match="value_fn is nan at the given params"):
        igr.run(sgd, lambda p: jnp.log(p["y"]) + p["x"], params, 3)
    with pytest.raises(TypeError, match="floating scalar; got dtype int"):
        igr.run(sgd, lambda p: jnp.array(1), params, 3)
    with pytest.raises(ValueError, match="at least one floating array"):
        igr.run(sgd, lambda p: jnp.array(1.0), {"n": 3}, 3)
    with pytest.raises(ValueError, match="open symbols beta"):
        optimizer_of(igr.methods.heavy_ball(sympy.Symbol("beta")), 0.1)


def test_a_second_run_compiles_nothing(polynomial, compilations):
    """Neither with other params, nor with another rate, nor with a loss made anew."""
    value_fn, params = polynomial
    igr.run(optax.adam(0.01), value_fn, params, 6)
    other = jax.tree.map(lambda x: 0.5 * x, params)
    again = lambda: igr.run(optax.adam(0.02), lambda p: value_fn(p), other, 6)
    assert compilations(again) == 0


def test_each_loss_is_its_own():
    """Two functions of one source are two losses; so are those of one that closes over arrays."""
    losses = [lambda p, c=c: c * jnp.sum(p**2) for c in (1.0, 3.0)]
    scales = [jnp.array(1.0), jnp.array(3.0)]
    losses += [lambda p, c=c: c * jnp.sum(p**2) for c in scales]
    starts = [float(igr.run(optax.sgd(0.1), f, jnp.ones(2), 1).value[0]) for f in losses]
    assert starts == [2.0, 6.0, 2.0, 6.0]
