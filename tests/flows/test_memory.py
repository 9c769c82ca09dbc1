"""What 10^7 parameters cost in memory, read from the compiled program: nothing is run."""

import jax
import jax.numpy as jnp
import optax
import pytest

import igr
from igr.backward_error import methods, modified_equation
from igr.curvature import hessian_product, top_eigenpairs
from igr.flows import rules
from igr.flows.newton_schulz import newton_schulz
from tests.quick import quick

WIDTH = 1_290
CLIP = rules.stateless(optax.clip_by_global_norm(1.0))
PARAMS = {
    f"w{i}": jax.ShapeDtypeStruct((WIDTH, WIDTH), jnp.float32) for i in range(6)
}  # 9,984,600 parameters


TOKENS, WIDE, BLOCKS = 8_192, 320, 6


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


DECODER = {"tokens": shape(TOKENS, WIDE)} | {
    f"block{i}": {
        "norm": shape(WIDE),
        "qkv": shape(WIDE, 3 * WIDE),
        "out": shape(WIDE, WIDE),
        "up": shape(WIDE, 4 * WIDE),
        "down": shape(4 * WIDE, WIDE),
    }
    for i in range(BLOCKS)
}  # 9,996,160 parameters


def value_fn(params):
    x = jnp.ones((2, WIDTH), jnp.float32)  # few examples: what is counted are vectors of parameters
    for w in params.values():
        x = jnp.tanh(x @ w)
    return jnp.mean(x**2)


def decoder_loss(params):
    """A transformer of one head, its embedding shared with the output."""
    ids = jnp.arange(0, 7 * 16, 7)
    x = params["tokens"][ids]
    for i in range(BLOCKS):
        x = layer(x, params[f"block{i}"])
    logits = x @ params["tokens"].T
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, ids))


STACKED = {"tokens": DECODER["tokens"]} | {
    "blocks": {k: shape(BLOCKS, *x.shape) for k, x in DECODER["block0"].items()}
}


def stacked_loss(params):
    """The same transformer, its layers stacked and scanned."""
    ids = jnp.arange(0, 7 * 16, 7)
    x, _ = jax.lax.scan(lambda x, p: (layer(x, p), None), params["tokens"][ids], params["blocks"])
    logits = x @ params["tokens"].T
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, ids))


def layer(x, p):
    q, k, v = jnp.split(normed(x, p["norm"]) @ p["qkv"], 3, axis=-1)
    x = x + jax.nn.softmax(q @ k.T / WIDE**0.5) @ v @ p["out"]
    return x + jax.nn.gelu(normed(x, p["norm"]) @ p["up"]) @ p["down"]


def normed(x, gain):
    return gain * x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-5)


def copies(f, *args):
    """Arguments, temporaries and results over the size of the parameters."""
    found = jax.jit(f).lower(*(args or (PARAMS,))).compile().memory_analysis()
    one = sum(x.size * 4 for x in jax.tree.leaves(PARAMS))  # as large as those of the decoder
    total = found.argument_size_in_bytes + found.temp_size_in_bytes + found.output_size_in_bytes
    return total / one


METHODS = {
    "gradient descent": methods.gradient_descent(),
    "heavy ball": methods.heavy_ball(0.9),
    "Adam": methods.adam(),
    "clipped": methods.rule(lambda m, theta: CLIP(m, theta), {"m": methods.ema(0.9)}),
    "Muon": rules.muon(),
}


def orthogonal(m):
    """Muon's rule where layers are stacked: all leaves here are matrices, or several."""
    return jax.tree.map(newton_schulz, m)


STACKED_METHODS = METHODS | {"Muon": methods.rule(orthogonal, {"m": methods.ema(0.95)})}


def copies_of_a_field(method, loss, params):
    kept = params
    if method is METHODS["Muon"]:  # a second moment is kept of what is no matrix
        kept = jax.tree.map(lambda x: optax.MaskedNode() if x.ndim == 2 else x, params)
    state = (params, {y: kept for y in method.kept}) if method.kept else params
    field = igr.vector_field(modified_equation(method, 1), loss, 0.1)
    return copies(lambda s: field(100.0, s, None), state)


@pytest.mark.parametrize("name", quick(list(METHODS), "heavy ball", "Adam", "clipped"))
def test_a_field_of_order_one_holds_six_copies(name):
    assert copies_of_a_field(METHODS[name], value_fn, PARAMS) <= 6


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_field_of_order_one_of_a_decoder_holds_six_copies(name):
    assert copies_of_a_field(METHODS[name], decoder_loss, DECODER) <= 6


@pytest.mark.slow
@pytest.mark.parametrize("name", STACKED_METHODS)
def test_a_field_of_order_one_of_stacked_layers_holds_six_copies(name):
    assert copies_of_a_field(STACKED_METHODS[name], stacked_loss, STACKED) <= 6


@pytest.mark.slow
def test_a_flow_of_order_one_holds_twenty_copies_beside_its_start():
    field = igr.vector_field(modified_equation(methods.gradient_descent(), 1), value_fn, 0.1)
    assert copies(lambda p: igr.flow(field, p, 1.0).ys) <= 21


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 3, 10])
@pytest.mark.parametrize(("method", "beyond"), [("lanczos", 20), ("subspace", 8)])
def test_an_eigen_solver_holds_its_basis(method, beyond, k):
    """Parameters and result included."""
    assert copies(lambda p: solved(value_fn, p, k, method)) <= k + beyond


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "beyond", "k"),
    [*(("lanczos", 20, k) for k in (1, 3, 10, 20)), *(("subspace", 8, k) for k in (1, 3, 10))],
)
def test_an_eigen_solver_holds_its_basis_of_stacked_layers(method, beyond, k):
    """Though the scan adds up the layers' gradients from zeros, which are one array more."""
    assert copies(lambda p: solved(stacked_loss, p, k, method), STACKED) <= k + beyond


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 10])
def test_lanczos_holds_its_basis_of_a_decoder(k):
    """Of as many leaves as a network in a dictionary has."""
    assert copies(lambda p: solved(decoder_loss, p, k, "lanczos"), DECODER) <= k + 20


def solved(loss, p, k, method):
    return top_eigenpairs(hessian_product(loss, p), p, k, method=method)
