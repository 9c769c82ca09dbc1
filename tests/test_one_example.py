"""Batch normalization in training mode is refused where examples come one at a time."""

from functools import cache

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from igr import curvature, diagnostics, penalties, per_example, transforms

X, Y = jax.random.normal(jax.random.key(0), (6, 3)), jnp.zeros(6)


class Linen(nn.Module):
    training: bool

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(4, param_dtype=float)(x)
        return nn.BatchNorm(param_dtype=float)(x, use_running_average=np.bool_(not self.training))


def linen(training):
    model = Linen(training)
    variables = model.init(jax.random.key(1), X)

    def apply(params, x):
        rest = {"batch_stats": variables["batch_stats"]}
        out, _ = model.apply({"params": params, **rest}, x[None], mutable=["batch_stats"])
        return out[0]

    return apply, variables["params"]


def modules(training):
    class Network(nnx.Module):
        def __init__(self, rngs):
            self.dense = nnx.Linear(3, 4, param_dtype=float, rngs=rngs)
            self.norm = nnx.BatchNorm(4, param_dtype=float, rngs=rngs)

        def __call__(self, x):
            return self.norm(self.dense(x))

    model = Network(nnx.Rngs(0))
    model.set_attributes(use_running_average=not training)
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def apply(params, x):
        return nnx.merge(graph, params, rest, copy=True)(x[None])[0]

    return apply, params


def haiku(training):
    def forward(x, training):
        return hk.BatchNorm(True, True, 0.9)(hk.Linear(4)(x), is_training=training)

    model = hk.transform_with_state(forward)
    params, state = model.init(jax.random.key(1), X, True)
    return lambda p, x: model.apply(p, state, None, x[None], np.bool_(training))[0][0], params


def equinox(training):
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(3, axis_name="batch", mode="ema")
    norm = eqx.nn.inference_mode(norm, value=not training)
    params, static = eqx.partition(norm, eqx.is_inexact_array)
    return lambda p, x: eqx.combine(p, static)(x, state)[0], params


# To make one takes longer than what is asked of it. What equinox keeps can be read once.
NETWORKS = {
    "linen": cache(linen), "nnx": cache(modules), "haiku": cache(haiku), "equinox": equinox
}  # fmt: skip


def loss_of(apply):
    return lambda params, example: jnp.sum((apply(params, example[0]) - example[1]) ** 2)


CALLS = {
    "per_example_gradients": lambda f, p: per_example.per_example_gradients(loss_of(f), p, (X, Y)),
    "grouped_gradients": lambda f, p: per_example.grouped_gradients(loss_of(f), p, (X, Y), 2),
    "winsorized_gradient": lambda f, p: transforms.winsorized_gradient(loss_of(f), p, (X, Y), 20),
    "coherence": lambda f, p: diagnostics.coherence(loss_of(f), p, (X, Y)),
    "stiffness": lambda f, p: diagnostics.stiffness(loss_of(f), p, (X, Y)),
    "batch_sharpness": lambda f, p: diagnostics.batch_sharpness(loss_of(f), p, (X, Y), 2),
    "hessian_product": lambda f, p: curvature.hessian_product(loss_of(f), p, (X, Y)),
    "fisher_product": lambda f, p: curvature.fisher_product(loss_of(f), p, (X, Y)),
    "gauss_newton_product": lambda f, p: curvature.gauss_newton_product(
        f, lambda out, y: jnp.sum((out - y) ** 2), p, (X, Y)
    ),
    "tangent_kernel_trace": lambda f, p: diagnostics.tangent_kernel_trace(f, p, X),
    "geometric_complexity": lambda f, p: diagnostics.geometric_complexity(f, p, X),
    "frobenius_penalty": lambda f, p: penalties.frobenius_penalty(f, p, X),
    "double_backprop": lambda f, p: penalties.double_backprop(loss_of(f), p, X, Y),
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("call", CALLS)
def test_training_mode_is_refused(call, network):
    with pytest.raises(ValueError, match=r"the examples meet in the network.*running statistics"):
        CALLS[call](*NETWORKS[network](True))


@pytest.mark.parametrize("network", NETWORKS)
def test_evaluation_mode_has_the_gradients_of_each_example(network):
    apply, params = NETWORKS[network](False)
    loss = loss_of(apply)
    found = jax.jit(lambda p: per_example.per_example_gradients(loss, p, (X, Y)))(params)
    gradient = jax.jit(jax.grad(loss))
    alone = [gradient(params, (x, y)) for x, y in zip(X, Y, strict=True)]
    for i, expected in enumerate(alone):
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-10, atol=1e-12)


def test_nnx_takes_a_batch_beside_what_is_refused():
    apply, params = modules(True)
    with pytest.raises(ValueError, match="the examples meet in the network"):
        per_example.per_example_gradients(loss_of(apply), params, (X, Y))
    norm = nnx.BatchNorm(3, use_running_average=False, rngs=nnx.Rngs(0))
    assert np.all(np.isfinite(norm(X[:1].astype(jnp.float32))))


def test_a_batch_may_be_the_example():
    model = Linen(True)
    variables = model.init(jax.random.key(1), X)

    def loss(params, x):
        whole = {"params": params, "batch_stats": variables["batch_stats"]}
        return jnp.mean(model.apply(whole, x, mutable=["batch_stats"])[0] ** 3)

    batches = X.reshape(2, 3, 3)
    found, expected = jax.jit(
        lambda p: (
            per_example.per_example_gradients(loss, p, batches),
            jax.grad(loss)(p, batches[1]),
        )
    )(variables["params"])
    np.testing.assert_allclose(
        found["Dense_0"]["kernel"][1], expected["Dense_0"]["kernel"], rtol=1e-9, atol=1e-12
    )
