"""Factors of matrices that are used at several positions of one example."""

from functools import partial

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igr.per_example import per_example_gradients
from igr.per_example.factors import Factors, PositionFactors, per_example_factors


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng([seed, *shape]).normal(size=shape) / 2)


def is_factored(leaf):
    return isinstance(leaf, Factors | PositionFactors)


def outputs(y):
    """A scalar that weighs all outputs differently."""
    y = jnp.ravel(jnp.tanh(y))
    return jnp.vdot(y, jnp.cos(jnp.arange(y.size, dtype=y.dtype)))


def conv(w, x, spec=("NHWC", "HWIO", "NHWC"), **options):
    options = {"window_strides": (1, 1), "padding": "VALID"} | options
    return jax.lax.conv_general_dilated(x, w, dimension_numbers=spec, **options)


def scanned(w, x, **options):
    def step(s, u):
        s = jax.jit(lambda s: jnp.tanh(w @ s + u))(s)
        return s, s[0]

    return jnp.append(*jax.lax.scan(step, x[0], x, **options))


def nested(w, x):
    """A scan in a scan, and what they end in times the same matrix transposed."""
    outer = lambda s, u: (jax.lax.scan(lambda t, _: (jnp.sin(t @ w), None), s + u, length=2)[0], u)
    return w @ jax.lax.scan(outer, x[0], x)[0]


def attention(p, x):
    q, k = x @ p["q"], jnp.einsum("td,dh->th", x, p["k"])
    return jax.nn.softmax(q @ k.T) @ (x @ p["v"])


IMAGE, ROWS, VECTOR = (5, 6, 2), (4, 3), (3,)
# name: the outputs, params, the shape of an example, positions of each leaf (None: kept whole)
CASES = {
    "rows": (lambda w, x: x @ w, normal(3, 2), ROWS, 4),
    "columns": (lambda w, x: w @ x.T, normal(2, 3), ROWS, 4),
    "two axes": (lambda w, x: jnp.einsum("abd,dh->hab", x, w), normal(2, 3), IMAGE, 30),
    "vmapped": (lambda w, x: jax.vmap(lambda u: w @ u)(x), normal(2, 3), ROWS, 4),
    "tied": (lambda w, x: w.T @ jnp.tanh(w @ x), normal(2, 3), VECTOR, 2),
    "scan": (scanned, normal(3, 3), ROWS, 4),
    "scan backwards": (lambda w, x: scanned(w, x, reverse=True, unroll=2), normal(3, 3), ROWS, 4),
    "scan in a scan": (nested, normal(3, 3), ROWS, 9),
    "attention": (
        attention,
        {"k": normal(3, 2), "q": normal(3, 2, seed=1), "v": normal(3, 4)},
        ROWS,
        [4, 4, 4],
    ),
    "convolution": (lambda w, x: conv(w, x[None]), normal(2, 3, 2, 4), IMAGE, 16),
    "same size": (lambda w, x: conv(w, x[None], padding="SAME"), normal(3, 2, 2, 3), IMAGE, 30),
    "strided": (
        lambda w, x: conv(w, x[None], window_strides=(2, 3), padding=((1, 0), (-1, 2))),
        normal(2, 2, 2, 3),
        IMAGE,
        6,
    ),
    "dilated": (lambda w, x: conv(w, x[None], rhs_dilation=(2, 1)), normal(2, 3, 2, 3), IMAGE, 12),
    "transposed": (
        lambda w, x: conv(w, x[None], lhs_dilation=(2, 2), padding=((0, 0), (0, 0))),
        normal(2, 2, 2, 3),
        IMAGE,
        80,
    ),
    "two frames": (lambda w, x: conv(w, jnp.stack([x, x**2])), normal(2, 3, 2, 4), IMAGE, 32),
    "convolution twice": (
        lambda w, x: conv(w, jnp.tanh(conv(w, x[None]))),
        normal(2, 2, 2, 2),
        IMAGE,
        32,
    ),
    "convolution in a scan": (
        lambda w, x: jax.lax.scan(
            lambda s, _: (jnp.tanh(conv(w, s, padding="SAME")), None), x[None], length=2
        )[0],
        normal(2, 2, 2, 2),
        IMAGE,
        60,
    ),
    "grouped": (
        lambda w, x: conv(w, x[None], feature_group_count=2),
        normal(2, 2, 1, 2),
        IMAGE,
        None,
    ),
    "the other operand": (lambda w, x: conv(x[..., None], w[None]), normal(6, 7, 2), IMAGE, None),
    "two readings": (
        lambda w, x: conv(w.reshape(1, 1, 3, 3), (w @ x.T).T[None, None]),
        normal(3, 3),
        ROWS,
        None,
    ),
    "carried": (
        lambda w, x: jax.lax.scan(lambda w, u: (w.T, w @ u), w, x)[1],
        normal(3, 3),
        ROWS,
        None,
    ),
    "a matrix a step": (
        lambda w, x: jax.lax.scan(lambda s, v: (jnp.tanh(v @ s), None), x, w)[0],
        normal(2, 3, 3),
        VECTOR,
        None,
    ),
    "in a branch": (
        lambda w, x: jax.lax.cond(x[0] > 0, lambda: w @ x, lambda: -w @ x),
        normal(3, 3),
        VECTOR,
        None,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def found():
    """The factors and the gradients of all cases, under one jit."""

    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # it runs once
    def measured(params, batches):
        both = {}
        for name, (fn, *_) in CASES.items():
            loss = lambda p, x, fn=fn: outputs(fn(p, x))
            of_case = loss, params[name], batches[name]
            both[name] = (
                per_example_factors(*of_case, positions=True),
                per_example_gradients(*of_case),
            )
        return both

    return measured(
        {name: params for name, (_, params, *_) in CASES.items()},
        {name: normal(3, *shape) for name, (_, _, shape, _) in CASES.items()},
    )


@pytest.mark.parametrize("name", list(CASES))
def test_the_factors_multiply_out_to_the_gradients(name, found):
    positions = CASES[name][-1]
    ours, theirs = found[name]
    ours = jax.tree.leaves(ours, is_leaf=is_factored)
    for a, d in zip(ours, jax.tree.leaves(theirs), strict=True):
        if positions is None:
            assert not is_factored(a)
        else:
            assert isinstance(a, PositionFactors)
            a = np.einsum("npa,npb->nab", *a)
        np.testing.assert_allclose(a.reshape(d.shape), d, rtol=1e-10, atol=1e-13)
    counted = [a.left.shape[1] for a in ours if is_factored(a)]
    assert counted == ([] if positions is None else np.atleast_1d(positions).tolist())


def test_without_positions_they_are_kept_whole():
    for name in ("rows", "tied", "scan", "convolution"):
        fn, params, shape, _ = CASES[name]
        loss = lambda p, x, fn=fn: outputs(fn(p, x))
        found = jax.eval_shape(partial(per_example_factors, loss), params, normal(3, *shape))
        assert found.shape == (3, *params.shape)


def test_one_position_stays_one_product():
    loss = lambda w, x: outputs(x @ w)
    factors = partial(per_example_factors, loss, positions=True)
    found = jax.eval_shape(factors, normal(3, 2), normal(4, 3))
    assert isinstance(found, Factors)


def test_other_layouts_of_kernels():
    """Channels first, as in equinox: rows are offsets and channels in all the same."""
    layer = eqx.nn.Conv2d(2, 4, (2, 3), padding=1, key=jax.random.key(0), dtype=float)
    loss = lambda layer, x: outputs(layer(x))
    batch = normal(3, 2, 5, 6)
    found, expected = eqx.filter_jit(
        lambda layer, batch: (
            per_example_factors(loss, layer, batch, positions=True).weight,
            per_example_gradients(loss, layer, batch).weight.transpose(0, 3, 4, 2, 1),
        )
    )(layer, batch)
    products = np.einsum("npa,npb->nab", *found)
    np.testing.assert_allclose(products.reshape(expected.shape), expected, rtol=1e-10)


def test_a_flax_network_of_one_dimension():
    model = nn.Sequential([nn.Conv(3, (4,), strides=2, param_dtype=float), nn.tanh, nn.Dense(2)])
    batch = normal(3, 9, 2)
    params = model.init(jax.random.key(0), batch[0])
    loss = lambda p, x: outputs(model.apply(p, x))
    ours, theirs = jax.jit(
        lambda p, b: (
            per_example_factors(loss, p, b, positions=True),
            per_example_gradients(loss, p, b),
        )
    )(params, batch)
    leaves = jax.tree.leaves(ours, is_leaf=is_factored)
    assert sum(map(is_factored, leaves)) == 2
    for a, d in zip(leaves, jax.tree.leaves(theirs), strict=True):
        a = np.einsum("npa,npb->nab", *a).reshape(d.shape) if is_factored(a) else a
        np.testing.assert_allclose(a, d, rtol=1e-5, atol=1e-6)
