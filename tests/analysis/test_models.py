"""The networks: sizes as the papers give them, and what each computes."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from analysis import models
from analysis.models import MLP, AlexNet, LeNet, ResNet, XordNetwork, num_parameters

KEY = jax.random.key(0)


def size_of(make):
    """The number of parameters, without drawing one."""
    return num_parameters(shape_of(make))


def shape_of(make):
    return eqx.filter_eval_shape(lambda: eqx.nn.make_with_state(make)(key=KEY)[0])


@pytest.mark.parametrize(
    ("width", "size"),
    [(50, 49_960), (100, 119_910), (200, 319_810), (400, 959_610), (800, 3_199_210),
     (1600, 11_518_410)],
)  # fmt: skip
def test_mlp_sizes_of_implicit_gradient_regularization(width, size):
    # Barrett and Dherin, legend of Figure 2.
    assert size_of(partial(MLP, 784, 10, width, 5)) == size


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (LeNet, 61_706),  # Varga et al., B.1
        (partial(MLP, 1, 1, 64, 5), 16_833),  # B.4 by hand: 128 + 4 * 4160 + 65
        (partial(ResNet, 200, stem="imagenet"), 11_279_112),  # B.3: around 11.3 million
        (partial(ResNet, 10), 11_173_962),
        (partial(MLP, 2, 1, 300, 6), 2 * 300 + 300 + 5 * (300 * 300 + 300) + 301),
        (partial(XordNetwork, 20), 2 * 20 + 20 + 100 * 2 + 2),
        (AlexNet, 5_670_602),  # ours: 640 + 110,784 + 663,936 + 884,992 + 590,080 + 3,420,170
        (partial(LeNet, 30, side=96), 156 + 2416 + 7744 * 120 + 120 + 10_164 + 84 * 30 + 30),
    ],
)
def test_sizes(make, size):
    assert size_of(make) == size


def test_resnet_of_spectreg_has_around_two_and_a_half_million_parameters():
    # Varga et al., B.2.
    assert 2.4e6 < size_of(partial(ResNet, 10, widths=(48, 96, 192), blocks=3)) < 2.6e6


def test_mlp_computes_its_formula():
    model = MLP(6, 2, 3, 2, jnp.tanh, key=KEY)
    x = jnp.arange(6.0).reshape(1, 2, 3)
    h = np.arange(6.0)
    for i, layer in enumerate(model.layers):
        h = h @ np.asarray(layer.weight) + np.asarray(layer.bias)
        h = np.tanh(h) if i < 2 else h
    np.testing.assert_allclose(model(x), h, rtol=1e-12)


def test_xord_network_sees_pair_by_pair():
    model = XordNetwork(3, pairs=2, key=KEY)
    model = eqx.tree_at(lambda m: m.filters.bias, model, jnp.array([0.1, 0.2, 0.3]))
    x = np.array([1.0, -1.0, -1.0, -1.0])
    w, b = np.asarray(model.filters.weight), np.asarray(model.filters.bias)
    hidden = np.concatenate([np.tanh(x[:2] @ w + b), np.tanh(x[2:] @ w + b)])
    np.testing.assert_allclose(model(jnp.asarray(x)), hidden @ np.asarray(model.output.weight))


def test_pooling():
    x = jnp.arange(2 * 5 * 4.0).reshape(2, 5, 4)
    from analysis.models.pooling import max_pool

    np.testing.assert_array_equal(max_pool(x)[0], [[5, 7], [13, 15]])


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (partial(LeNet, side=12, dropout=0.5), (1, 12, 12)),
        (partial(AlexNet, side=8, dropout=0.5), (1, 8, 8)),
        (partial(ResNet, widths=(4, 8), blocks=1, norm="group"), (3, 8, 8)),
        (partial(ResNet, widths=(4, 8), blocks=1, norm="group", stem="imagenet"), (3, 16, 16)),
    ],
)
def test_images_become_logits(make, shape):
    out = eqx.filter_eval_shape(lambda: make(key=KEY)(jnp.zeros(shape), key=KEY))
    assert out.shape == (10,)


@pytest.mark.slow
def test_dropout_only_with_a_key_and_in_the_mean_nothing():
    model = MLP(3, 2, 400, 1, jnp.tanh, dropout=0.3, key=KEY)
    x = jnp.ones(3)
    plain = model(x)
    dropped = jax.vmap(lambda k: model(x, key=k))(jax.random.split(KEY, 4000))
    assert jnp.std(dropped[:, 0]) > 1e-3
    error = jnp.std(dropped, axis=0) / 4000**0.5
    assert np.all(abs(jnp.mean(dropped, axis=0) - plain) < 4 * error)


@pytest.mark.slow
def test_batch_normalisation_normalises_over_the_batch():
    make = eqx.nn.make_with_state(partial(ResNet, widths=(4,), blocks=0))
    model, state = make(key=KEY)
    x = jax.random.normal(KEY, (6, 3, 4, 4))

    @eqx.filter_jit
    def run(model, state, x):
        return jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, state)

    plain, after = run(model, state, x)
    scaled, _ = run(eqx.tree_at(lambda m: m.first.weight, model, 7 * model.first.weight), state, x)
    np.testing.assert_allclose(plain, scaled, rtol=1e-3)  # but for the epsilon
    changed = [
        bool(jnp.any(a != b))
        for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True)
    ]
    assert any(changed)


def test_initialisation():
    model = shape_of(partial(MLP, 200, 200, 200, 1))
    small = models.initialise(model, models.uniform(0.3), jax.random.key(1))
    np.testing.assert_allclose(small.layers[0].weight.mean(), 0.15, rtol=0.02)
    assert small.layers[0].weight.min() >= 0
    assert (small.layers[0].weight != small.layers[1].weight).all()
    assert not small.layers[0].bias.any()
    again = models.initialise(model, models.uniform(0.3), jax.random.key(1), biases=True)
    np.testing.assert_array_equal(small.layers[0].weight, again.layers[0].weight)
    assert again.layers[0].bias.all()
    convolution = models.initialise(shape_of(LeNet).convolutions[1], models.uniform(1.0), KEY)
    assert convolution.weight.shape == (16, 6, 5, 5)
    assert convolution.bias.shape == (16, 1, 1)


def test_variances():
    # 4,000 numbers: two per cent, at three standard errors seven.
    glorot = models.glorot_normal(5.0)(KEY, (20, 200), 20, 200)
    np.testing.assert_allclose(glorot.var(), 5 * 2 / 220, rtol=0.07)
    lecun = models.lecun_normal(3.0)(KEY, (20, 200), 20, 200)
    np.testing.assert_allclose(lecun.var(), 3 / 20, rtol=0.07)
    np.testing.assert_allclose(
        MLP(20, 200, 1, 0, key=KEY).layers[0].weight.var(), 1 / 20, rtol=0.07
    )
    fans = []
    models.initialise(
        shape_of(LeNet).convolutions[1],
        lambda key, shape, fan_in, fan_out: fans.append((fan_in, fan_out)) or jnp.zeros(shape),
        KEY,
    )
    assert fans == [(6 * 25, 16 * 25)]


def test_the_large_regime_has_the_norm_of_the_dissertation():
    # Tables 5.1 and 5.2, synthetic, "SGD Large", whose norm hardly moves.
    shape = shape_of(partial(MLP, 256, 1, 400, 2))
    for activation, printed in (("tanh", 146.22), ("relu", 60.29)):
        _, large = models.INITIAL_RANGES["synthetic", activation]
        model = models.initialise(shape, models.uniform(large), KEY)
        norm = np.sqrt(sum(np.sum(np.asarray(layer.weight) ** 2) for layer in model.layers))
        assert abs(norm / printed - 1) < 0.03


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: MLP(1, 1, 1, -1, key=KEY), "depth must be at least 0; got -1"),
        (lambda: MLP(0, 1, 1, 1, key=KEY), "inputs and outputs must be at least 1; got 0, 1"),
        (lambda: MLP(1, 1, 1, 1, dropout=1.0, key=KEY), r"dropout must be in \[0, 1\); got 1.0"),
        (lambda: LeNet(side=8, key=KEY), "side must be at least 12; got 8"),
        (lambda: LeNet(side=7, filter_side=3, key=KEY), "side must be at least 8; got 7"),
        (lambda: LeNet(filter_side=4, key=KEY), "filter_side must be odd; got 4"),
        (lambda: AlexNet(side=7, key=KEY), "side must be at least 8; got 7"),
        (lambda: ResNet(stem="big", key=KEY), 'stem must be "small" or "imagenet"; got \'big\''),
        (lambda: ResNet(norm="layer", key=KEY), 'norm must be "batch" or "group"'),
        (lambda: models.uniform(0.0), "low and high must be finite"),
        (lambda: models.glorot_normal(0.0), "scale must be positive and finite; got 0"),
        (lambda: models.initialise({}, models.uniform(1.0), KEY), "no dense layer"),
    ],
)
def test_bad_input(make, says):
    with pytest.raises(ValueError, match=says):
        make()
