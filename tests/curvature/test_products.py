"""Products against the dense matrices, over every case."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from igr.curvature import fisher_product, gauss_newton_product, hessian_product
from tests.curvature.cases import softmax_mlp

NAMES = ("hessian", "gauss_newton", "fisher")


def products(case, chunk=None):
    """Each product, and the name of its dense matrix."""
    pair = case.params, case.batch
    return {
        "hessian": hessian_product(case.example_loss_fn, *pair, chunk=chunk),
        "gauss_newton": gauss_newton_product(
            case.apply_fn, case.output_loss_fn, *pair, chunk=chunk
        ),
        "fisher": fisher_product(case.example_loss_fn, *pair, chunk=chunk),
    }


def vectors(case, count=1):
    """Random vectors, as rows and as a list of pytrees with the structure of the parameters."""
    rng = np.random.default_rng(0)
    like, rest = eqx.partition(case.params, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(like)
    rows = rng.normal(size=(count, flat.size)).astype(flat.dtype)
    return rows, [eqx.combine(unravel(jnp.asarray(row)), rest) for row in rows]


def flattened(tree):
    return np.asarray(ravel_pytree(eqx.filter(tree, eqx.is_inexact_array))[0])


def test_products_are_those_of_the_dense_matrices(case):
    """All at once and in chunks that do not divide the batch; structure and dtypes are kept."""
    [row], [tree] = vectors(case)

    @eqx.filter_jit
    def every(tree):  # one program, for the compiler is most of the cost
        return [
            (name, product(tree))
            for chunk in (None, 5)
            for name, product in products(case, chunk).items()
        ]

    for name, got in every(tree):
        dense = getattr(case, name)
        scale = np.abs(dense).max() * np.linalg.norm(row)
        np.testing.assert_allclose(flattened(got), dense @ row, atol=case.tolerance * scale)
        assert jax.tree.structure(got) == jax.tree.structure(tree)
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(tree), strict=True):
            if eqx.is_inexact_array(b):
                assert (a.dtype, a.shape) == (b.dtype, b.shape)
            else:
                assert a is b or (a == b).all()


def test_none_is_accepted_where_a_leaf_is_not_floating(case_named):
    case = case_named("equinox_mlp")
    rows, [tree] = vectors(case)
    got = hessian_product(case.value_fn, case.params)(eqx.filter(tree, eqx.is_inexact_array))
    assert got.steps is None
    np.testing.assert_allclose(flattened(got), case.hessian @ rows[0], atol=1e-12)


def test_functions_of_the_whole_batch_give_the_same_products(case_named):
    case = case_named("equinox_mlp")
    rows, [tree] = vectors(case)
    x, y = case.batch
    got = gauss_newton_product(
        lambda p: jax.vmap(lambda x: case.apply_fn(p, x))(x),
        lambda outputs: jnp.mean(jax.vmap(case.output_loss_fn)(outputs, y)),
        case.params,
    )(tree)
    np.testing.assert_allclose(flattened(got), case.gauss_newton @ rows[0], atol=1e-11)


@pytest.mark.parametrize("chunk", [pytest.param(None, marks=pytest.mark.slow), 5])
def test_products_are_arguments_of_jit_and_vmap(case_named, chunk):
    case = case_named("softmax_mlp")
    rows, trees = vectors(case, 3)
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *trees)
    every = jax.jit(lambda product, v: jax.vmap(product)(v))
    product = hessian_product(case.example_loss_fn, case.params, case.batch, chunk=chunk)
    got = every(product, stacked)
    got = np.stack([flattened(jax.tree.map(lambda a, i=i: a[i], got)) for i in range(3)])
    np.testing.assert_allclose(got, rows @ case.hessian, atol=1e-11)


@pytest.mark.parametrize("chunk", [None, 5])
def test_new_parameters_reuse_the_compiled_program(case_named, chunk, compilations):
    case = case_named("softmax_mlp")

    def apply(scale):
        params = jax.tree.map(lambda a: np.asarray(a) * scale, case.params)
        loss = lambda params, example: case.example_loss_fn(params, example)
        return hessian_product(loss, params, case.batch, chunk=chunk)(params)

    apply(1.0)
    assert compilations(lambda: apply(2.0)) == 0


def test_a_loss_that_is_itself_a_pytree_of_arrays(case_named):
    case = case_named("linear_regression")

    class Scaled(eqx.Module):
        scale: jax.Array

        def __call__(self, params, example):
            return self.scale * case.example_loss_fn(params, example)

    rows, [tree] = vectors(case)
    for chunk in (None, 5):
        product = hessian_product(Scaled(jnp.array(3.0)), case.params, case.batch, chunk=chunk)
        np.testing.assert_allclose(flattened(product(tree)), 3 * case.hessian @ rows[0], atol=1e-11)


@pytest.mark.slow
def test_bfloat16_parameters_give_bfloat16_products(case_named):
    exact = case_named("softmax_mlp")
    rows, [tree] = vectors(exact)
    narrow = jax.tree.map(lambda a: a.astype(jnp.bfloat16), tree)

    @jax.jit
    def every(narrow):
        case = softmax_mlp(jnp.bfloat16)
        return [(products(case)[name](narrow), products(case, 5)[name](narrow)) for name in NAMES]

    pairs = zip(NAMES, every(narrow), strict=True)
    for name, got in [(name, got) for name, pair in pairs for got in pair]:
        assert all(a.dtype == jnp.bfloat16 for a in jax.tree.leaves(got))
        expected = getattr(exact, name) @ rows[0]
        np.testing.assert_allclose(
            flattened(got).astype(float), expected, atol=0.05 * np.abs(expected).max()
        )


def test_gauss_newton_is_the_hessian_of_a_linear_model_and_semi_definite(case_named):
    case = case_named("linear_regression")
    np.testing.assert_allclose(case.gauss_newton, case.hessian, atol=1e-12)
    assert np.linalg.eigvalsh(case_named("softmax_mlp").gauss_newton)[0] > -1e-12


def test_chunks_take_a_fraction_of_the_memory():
    params = [jnp.ones((64, 32), jnp.float32), jnp.ones((32, 4), jnp.float32)]
    batch = jnp.ones((1024, 64), jnp.float32)

    def loss(p, x):
        return jnp.sum(jnp.tanh(jnp.tanh(x @ p[0]) @ p[1]) ** 2)

    many = jax.tree.map(lambda a: jnp.stack([a] * 10), params)

    def temporaries(chunk):
        product = hessian_product(loss, params, batch, chunk=chunk)
        run = jax.jit(lambda product, v: jax.vmap(product)(v))
        return run.lower(product, many).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(128) < temporaries(None) / 4


def test_linearizing_a_chunked_product_keeps_only_the_data(case_named):
    """Somebody else's `jax.linearize` sees a linear map: nothing of the chunks is stored."""
    case = case_named("softmax_mlp")
    product = hessian_product(case.example_loss_fn, case.params, case.batch, chunk=5)
    rows, [tree] = vectors(case)
    _, linear = jax.linearize(product, tree)
    np.testing.assert_allclose(flattened(linear(tree)), case.hessian @ rows[0], atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hessian_product(jnp.sum, {"n": jnp.arange(3)}), "at least one floating array"),
        (lambda: hessian_product(lambda p: p, jnp.ones(3)), "must return a floating scalar"),
        (lambda: hessian_product(jnp.sum, jnp.ones(3), chunk=2), "needs the examples"),
        (
            lambda: hessian_product(
                lambda p, e: p @ e[0], jnp.ones(3), (jnp.ones((4, 3)), jnp.ones(5))
            ),
            r"agree in their leading example axis; got 4 in batch\[0\], 5 in batch\[1\]",
        ),
        (
            lambda: hessian_product(lambda p, e: p @ e, jnp.ones(3), jnp.ones((0, 3))),
            "at least one example",
        ),
        (
            lambda: hessian_product(lambda p, e: p @ e, jnp.ones(3), jnp.ones((4, 3)), chunk=0),
            "chunk must be at least 1; got 0",
        ),
        (
            lambda: hessian_product(lambda p: p @ p, jnp.ones(3))(jnp.ones(4)),
            "v must have the structure and shapes of params",
        ),
        (
            lambda: gauss_newton_product(jnp.dot, lambda f, y: f, jnp.ones(3), jnp.ones((4, 3))),
            r"the pair \(inputs, targets\)",
        ),
        (
            lambda: gauss_newton_product(
                lambda p, x: p * x, lambda f, y: f, jnp.ones(3), (jnp.ones((4, 3)), jnp.ones(4))
            ),
            "output_loss_fn must return a floating scalar",
        ),
        (
            lambda: fisher_product(lambda p, e: p * e, jnp.ones(3), jnp.ones((4, 3))),
            "example_loss_fn must return a floating scalar",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
