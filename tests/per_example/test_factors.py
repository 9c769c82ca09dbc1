import equinox as eqx
import flax.linen
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from igr.diagnostics import stiffness
from igr.per_example import per_example_gradients
from igr.per_example.factors import Factors, per_example_factors


def is_factors(leaf):
    return isinstance(leaf, Factors)


def assert_factored(loss, params, batch, expected):
    """The factors multiply out to the gradients, and `expected` leaves are factored."""
    both = eqx.filter_jit(
        lambda p, b: (per_example_factors(loss, p, b), per_example_gradients(loss, p, b))
    )
    ours, theirs = both(params, batch)
    leaves = jax.tree.leaves(ours, is_leaf=is_factors)
    assert sum(map(is_factors, leaves)) == expected
    for a, d in zip(leaves, jax.tree.leaves(theirs), strict=True):
        if is_factors(a):
            assert a.left.shape[1:] + a.right.shape[1:] == d.shape[1:]
            np.testing.assert_allclose(a.mean(), d.mean(axis=0), rtol=1e-10, atol=1e-13)
            a = np.einsum("na,nb->nab", a.left, a.right)
        np.testing.assert_allclose(a, d, rtol=1e-12, atol=1e-14)


@pytest.mark.slow
def test_activations_that_are_complex_or_whole_numbers():
    """A real matrix times complex numbers has its gradients formed; times integers, factors."""
    rng = np.random.default_rng(1)
    params = {"w": jnp.asarray(rng.normal(size=(3, 2))), "v": jnp.asarray(rng.normal(size=(2, 2)))}
    x = jnp.asarray(rng.normal(size=(5, 3)))
    assert_factored(lambda p, x: jnp.sum(jnp.abs((x + 1j) @ p["w"] @ p["v"]) ** 2), params, x, 0)
    whole = jnp.asarray(rng.integers(0, 3, size=(5, 3)))
    loss = lambda p, x: jnp.sum(jax.lax.dot(x, p["w"], preferred_element_type=float) ** 2)
    assert_factored(loss, params, whole, 1)
    gradients = [np.ravel(jax.grad(loss)(params, example)["w"]) for example in whole]
    units = np.stack([g / np.linalg.norm(g) for g in gradients])
    np.testing.assert_allclose(stiffness(loss, params, whole), units @ units.T, rtol=1e-9)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=(6, 3))), jnp.asarray(rng.normal(size=(6, 2)))


def square(outputs, y):
    return jnp.sum((outputs - y) ** 2)


def test_linen(batch):
    model = flax.linen.Sequential(
        [
            flax.linen.Dense(4, param_dtype=float),
            flax.linen.relu,
            flax.linen.Dense(2, param_dtype=float),
        ]
    )
    params = model.init(jax.random.key(0), batch[0][0])
    assert_factored(lambda p, e: square(model.apply(p, e[0]), e[1]), params, batch, 2)
    one_row = lambda p, e: square(model.apply(p, e[0][None])[0], e[1])
    assert_factored(one_row, params, batch, 2)


def test_nnx(batch):
    graph, params = nnx.split(nnx.Linear(3, 2, param_dtype=float, rngs=nnx.Rngs(0)))
    assert_factored(lambda p, e: square(nnx.merge(graph, p)(e[0]), e[1]), params, batch, 1)


def test_equinox_keeps_its_transposed_weights(batch):
    network = eqx.nn.MLP(3, 2, 4, 2, activation=jax.nn.gelu, key=jax.random.key(0))
    assert_factored(lambda m, e: square(m(e[0]), e[1]), network, batch, 3)


def test_haiku(batch):
    network = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([4, 2])(x)))
    params = network.init(jax.random.key(0), batch[0][0])
    assert_factored(lambda p, e: square(network.apply(p, e[0]), e[1]), params, batch, 2)


def test_products_inside_jit_and_through_transposes_and_casts(batch):
    inner = jax.jit(lambda w, x: jnp.tanh(x @ w.T))

    def loss(p, e):
        hidden = inner(p[1], jax.jit(inner)(p[0], e[0]))
        return square((hidden.astype(jnp.float32) @ p[2].astype(jnp.float32)), e[1])

    rng = np.random.default_rng(0)
    params = [jnp.asarray(rng.normal(size=s)) for s in ((3, 3), (3, 3), (3, 2))]
    ours = jax.jit(lambda p, b: per_example_factors(loss, p, b))(params, batch)
    assert all(map(is_factors, ours))
    theirs = jax.jit(lambda p, b: per_example_gradients(loss, p, b))(params, batch)
    for a, d, rtol in zip(ours, theirs, (1e-5, 1e-5, 1e-5), strict=True):
        np.testing.assert_allclose(np.einsum("na,nb->nab", *a), d, rtol=rtol, atol=1e-6)


@pytest.mark.parametrize(
    "loss",
    [
        lambda w, e: square(w.T @ jnp.tanh(w @ e[0]), e[0]),  # twice
        lambda w, e: square(w @ e[0], e[0]) + jnp.sum(w**2),  # in a penalty too
        lambda w, e: jnp.sum(jnp.tanh(jnp.stack([e[0], e[1][0] * e[0]]) @ w)),  # at two positions
        lambda w, e: jnp.sum(jnp.sin(w) @ e[0]),  # not itself
        lambda w, e: jnp.sum(jax.lax.scan(lambda h, _: (jnp.tanh(w @ h), None), e[0], length=2)[0]),
        lambda w, e: jnp.sum(jax.checkpoint(lambda w: jnp.tanh(w @ e[0]))(w)),
        lambda w, e: jnp.sum(w @ w) * e[0][0],
        lambda w, e: jnp.trace(w) * e[0][0],
    ],
)
def test_what_is_not_one_product_is_kept_whole(loss, batch):
    w = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3)))
    assert_factored(loss, w, batch, 0)


def test_custom_derivatives_are_respected(batch):
    @jax.custom_vjp
    def doubled_backwards(x):
        return x

    doubled_backwards.defvjp(lambda x: (x, None), lambda _, g: (2 * g,))
    w = jnp.ones((3, 2))
    assert_factored(lambda w, e: square(doubled_backwards(e[0] @ w), e[1]), w, batch, 1)


def test_no_gradient_of_a_factored_matrix_is_formed():
    params = {"w": jnp.zeros((200, 300)), "b": jnp.zeros(300)}
    batch = jnp.ones((50, 200))
    loss = lambda p, x: jnp.sum(jnp.tanh(x @ p["w"] + p["b"]))
    compiled = jax.jit(lambda p, b: per_example_factors(loss, p, b)).lower(params, batch).compile()
    analysis = compiled.memory_analysis()
    assert analysis.temp_size_in_bytes + analysis.output_size_in_bytes < 200 * 300 * 8
