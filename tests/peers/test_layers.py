"""Gradients of single examples, layer by layer, against a loop over the examples."""

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from igr import diagnostics, per_example, transforms

pytestmark = pytest.mark.slow
RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
N = 5


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape))


def tokens(length, words=7):
    return jnp.asarray(RNG.integers(words, size=(N, length)))


def of_linen(layer, x, **options):
    """A layer of flax's linen, its parameters, and a batch."""
    params = layer.init(KEY, x[0], **options)["params"]
    return lambda p, x: layer.apply({"params": p}, x, **options), params, x


def of_equinox(layer, x):
    params, static = eqx.partition(layer, eqx.is_inexact_array)
    return lambda p, x: eqx.combine(p, static)(x), params, x


def of_haiku(make, x):
    net = hk.without_apply_rng(hk.transform(lambda x: make()(x)))
    return net.apply, net.init(KEY, x[0]), x


def of_nnx(layer, x):
    graph, params = nnx.split(layer)
    return lambda p, x: nnx.merge(graph, p)(x), params, x


def conv(*args, **options):
    return nn.Conv(*args, param_dtype=float, **options)


def recurrent(cell, x):
    """An equinox cell along a sequence."""

    def run(cell, x):
        start = jnp.zeros(cell.hidden_size)
        start = (start, start) if isinstance(cell, eqx.nn.LSTMCell) else start
        return jax.tree.leaves(jax.lax.scan(lambda s, u: (cell(u, s), 0.0), start, x)[0])[0]

    params, static = eqx.partition(cell, eqx.is_inexact_array)
    return lambda p, x: run(eqx.combine(p, static), x), params, x


def to_itself(layer, x):
    params, static = eqx.partition(layer, eqx.is_inexact_array)
    return lambda p, x: eqx.combine(p, static)(x, x, x), params, x


def tied(p, x):
    """Words in and out by one matrix."""
    hidden = jnp.tanh(p["embedding"][x] @ p["w"])
    return hidden @ p["embedding"].T


def bilinear(p, x):
    return jnp.einsum("i,ijk,j->k", x, p, jnp.sin(x))


def attention_with_a_mask(p, x):
    q, k, v = (x @ p[name] for name in "qkv")
    scores = jnp.where(jnp.tril(jnp.ones((len(x), len(x)), bool)), q @ k.T, -jnp.inf)
    return jax.nn.softmax(scores) @ v


def normed(layer):
    """A normalization between two dense layers, so that it meets features of its own."""
    return nn.Sequential([nn.Dense(6, param_dtype=float), layer, jnp.tanh])


IMAGES, SEQUENCES, VECTORS = normal(N, 6, 7, 4), normal(N, 5, 4), normal(N, 4)
LAYERS = {
    "dense": lambda: of_linen(nn.Dense(3, param_dtype=float), VECTORS),
    "dense without a bias": lambda: of_linen(nn.Dense(3, False, param_dtype=float), VECTORS),
    "dense on a sequence": lambda: of_linen(nn.Dense(3, param_dtype=float), SEQUENCES),
    "dense on an image": lambda: of_linen(nn.DenseGeneral(3, param_dtype=float), IMAGES),
    "dense of two axes": lambda: of_linen(
        nn.DenseGeneral((2, 3), axis=(-2, -1), param_dtype=float), SEQUENCES
    ),
    "dense of equinox": lambda: of_equinox(eqx.nn.Linear(4, 3, key=KEY), VECTORS),
    "dense of haiku": lambda: of_haiku(lambda: hk.Linear(3), VECTORS),
    "dense of nnx": lambda: of_nnx(nnx.Linear(4, 3, rngs=nnx.Rngs(0), param_dtype=float), VECTORS),
    "convolution of one axis": lambda: of_linen(conv(3, (3,)), SEQUENCES),
    "convolution": lambda: of_linen(conv(3, (3, 2)), IMAGES),
    "convolution of three axes": lambda: of_linen(conv(2, (2, 2, 2)), normal(N, 3, 4, 3, 2)),
    "strided": lambda: of_linen(conv(3, (3, 3), strides=(2, 1)), IMAGES),
    "dilated": lambda: of_linen(conv(3, (2, 3), kernel_dilation=(2, 1)), IMAGES),
    "dilated input": lambda: of_linen(
        conv(3, (2, 2), input_dilation=(2, 2), padding=((0, 1), (1, 0))), IMAGES
    ),
    "grouped": lambda: of_linen(conv(6, (3, 3), feature_group_count=2), IMAGES),
    "depthwise": lambda: of_linen(conv(4, (3, 3), feature_group_count=4), IMAGES),
    "grouped, strided, dilated": lambda: of_linen(
        conv(4, (2, 2), strides=(2, 1), kernel_dilation=(1, 2), feature_group_count=2), IMAGES
    ),
    "circular padding": lambda: of_linen(conv(2, (3, 3), padding="CIRCULAR"), IMAGES),
    "transposed convolution": lambda: of_linen(
        nn.ConvTranspose(2, (3, 3), strides=(2, 2), param_dtype=float), IMAGES
    ),
    "locally connected": lambda: of_linen(nn.ConvLocal(2, (2, 2), param_dtype=float), IMAGES),
    "convolution of equinox": lambda: of_equinox(
        eqx.nn.Conv2d(4, 2, 3, groups=2, key=KEY), jnp.moveaxis(IMAGES, -1, 1)
    ),
    "convolution of haiku": lambda: of_haiku(lambda: hk.Conv2D(2, 3, stride=2), IMAGES),
    "embedding": lambda: of_linen(nn.Embed(7, 3, param_dtype=float), tokens(6)),
    "embedding of equinox": lambda: (
        lambda p, x: jax.vmap(p)(x),
        eqx.nn.Embedding(7, 3, key=KEY),
        tokens(6),
    ),
    "tied embedding": lambda: (tied, {"embedding": normal(7, 3), "w": normal(3, 3)}, tokens(6)),
    "layer norm": lambda: of_linen(normed(nn.LayerNorm(param_dtype=float)), SEQUENCES),
    "root mean square norm": lambda: of_linen(normed(nn.RMSNorm(param_dtype=float)), SEQUENCES),
    "group norm": lambda: of_linen(
        normed(nn.GroupNorm(2, param_dtype=float, reduction_axes=(0, 1, 2))), IMAGES
    ),
    "weight norm": lambda: of_linen(
        nn.WeightNorm(nn.Dense(3, param_dtype=float), param_dtype=float), VECTORS
    ),
    "attention": lambda: of_linen(
        nn.MultiHeadDotProductAttention(2, param_dtype=float, qkv_features=4), SEQUENCES
    ),
    "attention of equinox": lambda: to_itself(eqx.nn.MultiheadAttention(2, 4, key=KEY), SEQUENCES),
    "attention with a mask": lambda: (
        attention_with_a_mask,
        {name: normal(4, 3) for name in "qkv"},
        SEQUENCES,
    ),
    "lstm": lambda: of_linen(nn.RNN(nn.OptimizedLSTMCell(3, param_dtype=float)), SEQUENCES),
    "gru": lambda: of_linen(nn.RNN(nn.GRUCell(3, param_dtype=float)), SEQUENCES),
    "two directions": lambda: of_linen(
        nn.Bidirectional(
            nn.RNN(nn.GRUCell(2, param_dtype=float)),
            nn.RNN(nn.GRUCell(2, param_dtype=float)),
        ),
        SEQUENCES,
    ),
    "lstm of equinox": lambda: recurrent(eqx.nn.LSTMCell(4, 3, key=KEY), SEQUENCES),
    "gru of equinox": lambda: recurrent(eqx.nn.GRUCell(4, 3, key=KEY), SEQUENCES),
    "prelu": lambda: of_linen(nn.Sequential([nn.PReLU(param_dtype=float)]), VECTORS),
    "bilinear": lambda: (bilinear, normal(4, 4, 2), VECTORS),
    "remat": lambda: of_linen(nn.remat(nn.Dense)(3, param_dtype=float), VECTORS),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name):
    apply, params, x = LAYERS[name]()
    y = normal(N, jax.eval_shape(apply, params, x[0]).size)

    def loss(params, example):
        x, y = example
        outputs = jnp.ravel(apply(params, x))
        return jnp.sum(jnp.log(jnp.cosh(outputs - y)))

    alone = jax.jit(jax.grad(loss))
    each = [alone(params, (x[i], y[i])) for i in range(N)]
    expected = np.stack([np.concatenate([np.ravel(a) for a in jax.tree.leaves(g)]) for g in each])

    found = jax.tree.leaves(per_example.per_example_gradients(loss, params, (x, y)))
    np.testing.assert_allclose(
        np.concatenate([np.reshape(a, (N, -1)) for a in found], axis=1), expected, atol=1e-10
    )
    coherence = diagnostics.coherence(loss, params, (x, y))
    mean = expected.mean(0)
    np.testing.assert_allclose(coherence.mean_square, np.mean(np.sum(expected**2, 1)), rtol=1e-9)
    np.testing.assert_allclose(coherence.mean_gradient_square, mean @ mean, rtol=1e-9)
    unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(
        diagnostics.stiffness(loss, params, (x, y)), unit @ unit.T, atol=1e-9
    )
    low, high = np.percentile(expected, [20, 80], axis=0)
    winsorized = jax.tree.leaves(transforms.winsorized_gradient(loss, params, (x, y), 20))
    np.testing.assert_allclose(
        np.concatenate([np.ravel(a) for a in winsorized]),
        np.clip(expected, low, high).mean(0),
        atol=1e-9,
    )
