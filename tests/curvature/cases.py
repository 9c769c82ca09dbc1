"""The table of networks and losses that every product and solver is tested on.

Beside each stand its dense matrices, from `jax.hessian` and `jax.jacobian` of the raveled loss and
sums over examples in numpy, with none of the code under test.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import equinox as eqx
import flax.linen
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial


class Case:
    """A model, a loss on its outputs, parameters and a batch of (inputs, targets)."""

    def __init__(
        self,
        apply_fn: Callable[[Any, Any], Any],
        output_loss_fn: Callable[[Any, Any], Any],
        params: Any,
        batch: tuple[Any, Any],
        *,
        tolerance: float = 1e-12,
    ):
        self.apply_fn = apply_fn
        self.output_loss_fn = output_loss_fn
        self.params = params
        self.batch = batch
        self.tolerance = tolerance

    def example_loss_fn(self, params, example):
        x, y = example
        return self.output_loss_fn(self.apply_fn(params, x), y)

    def value_fn(self, params):
        return jnp.mean(jax.vmap(lambda e: self.example_loss_fn(params, e))(self.batch))

    @cached_property
    def wide(self):
        """The floating leaves and the rest, in float64; the flat vector and its way back."""
        vector, rest = eqx.partition(self.params, eqx.is_inexact_array)
        vector = jax.tree.map(lambda a: a.astype(jnp.float64), vector)
        flat, unravel = ravel_pytree(vector)
        return flat, lambda flat: eqx.combine(unravel(flat), rest)

    @property
    def size(self):
        return self.wide[0].size

    @cached_property
    def dense(self):
        """Of every example: the Hessian, the Gauss-Newton matrix, the gradient. One program."""
        flat, back = self.wide

        def loss(p, e):
            return self.example_loss_fn(back(p), e)

        def matrices(flat, example):
            x, y = example
            f, unravel = ravel_pytree(self.apply_fn(back(flat), x))
            bend = jax.hessian(lambda f: self.output_loss_fn(unravel(f), y))(f)
            jacobian = jax.jacobian(lambda p: ravel_pytree(self.apply_fn(back(p), x))[0])(flat)
            return (
                jax.hessian(loss)(flat, example),
                jacobian.T @ bend @ jacobian,
                jax.grad(loss)(flat, example),
            )

        every = jax.jit(jax.vmap(matrices, (None, 0)))(flat, self.batch)
        return [np.asarray(found) for found in every]

    @property
    def example_hessians(self):
        return self.dense[0]

    @property
    def hessian(self):
        return self.dense[0].mean(0)

    @property
    def gauss_newton(self):
        return self.dense[1].mean(0)

    @property
    def fisher(self):
        g = self.dense[2]
        return g.T @ g / len(g)


def half_square(outputs, y):
    return jnp.sum((outputs - y) ** 2) / 2


def cross_entropy(logits, label):
    return optax.softmax_cross_entropy_with_integer_labels(logits, label)


def _data(count, inputs, outputs):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(count, inputs)))
    return (
        x,
        jnp.asarray(rng.normal(size=(count, outputs))),
        jnp.asarray(rng.integers(outputs, size=count)),
    )


def linear_regression():
    x, y, _ = _data(9, 3, 2)
    params = {"w": jnp.ones((3, 2)), "b": jnp.zeros(2)}
    return Case(lambda p, x: x @ p["w"] + p["b"], half_square, params, (x, y))


def softmax_mlp(dtype=jnp.float64, tolerance=1e-12):
    x, _, labels = _data(12, 4, 3)
    rng = np.random.default_rng(1)
    params = [
        {
            "w": jnp.asarray(rng.normal(size=s), dtype),
            "b": jnp.asarray(rng.normal(size=s[1]), dtype),
        }
        for s in ((4, 5), (5, 3))
    ]

    def apply_fn(p, x):
        return jnp.tanh(x @ p[0]["w"] + p[0]["b"]) @ p[1]["w"] + p[1]["b"]

    return Case(apply_fn, cross_entropy, params, (x.astype(dtype), labels), tolerance=tolerance)


SADDLE = np.array([5.0, 5.0, 5.0, -5.0, -3.0, 2.0, 2.0, -1.0, 0.5, 0.0, 0.0, 0.0])


def saddle():
    """A quadratic with the eigenvalues SADDLE, on the mean over examples that differ in scale."""
    q = np.linalg.qr(np.random.default_rng(2).normal(size=(12, 12)))[0]
    matrix = jnp.asarray(q * SADDLE @ q.T)

    def apply_fn(p, scale):
        w = jnp.concatenate([p["a"].ravel(), p["b"][None], p["c"]])
        return scale * (w @ matrix @ w) / 2

    params = {"a": jnp.ones((2, 4)), "b": jnp.ones(()), "c": jnp.zeros(3)}
    scales = jnp.array([0.5, 1.5, 1.0, 1.0])
    return Case(apply_fn, lambda out, _: out, params, (scales, jnp.zeros(4)))


def equinox_mlp():
    """With leaves that are functions and integers among the parameters."""
    x, y, _ = _data(7, 3, 2)

    class Counted(eqx.Module):
        net: eqx.nn.MLP
        steps: jax.Array

    params = Counted(eqx.nn.MLP(3, 2, 4, 1, jnp.tanh, key=jax.random.key(3)), jnp.arange(3))
    return Case(lambda p, x: p.net(x), half_square, params, (x, y))


def linen_mlp():
    x, y, _ = _data(7, 3, 1)
    net = flax.linen.Sequential([flax.linen.Dense(4), flax.linen.softplus, flax.linen.Dense(1)])
    params = jax.tree.map(lambda a: a.astype(jnp.float64), net.init(jax.random.key(4), x[0]))
    return Case(net.apply, lambda out, y: jnp.sum(jnp.logaddexp(0, -out * y)), params, (x, y))


def nnx_linear():
    x, _, labels = _data(7, 3, 3)
    graph, params = nnx.split(nnx.Linear(3, 3, param_dtype=jnp.float64, rngs=nnx.Rngs(5)))
    return Case(lambda p, x: nnx.merge(graph, p)(x), cross_entropy, params, (x, labels))


def haiku_mlp():
    x, y, _ = _data(7, 3, 1)
    net = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([4, 1], activation=jnp.tanh)(x)))
    params = jax.tree.map(lambda a: a.astype(jnp.float64), net.init(jax.random.key(6), x[0]))
    return Case(net.apply, half_square, params, (x, y))


BUILDERS = {
    "linear_regression": linear_regression,
    "softmax_mlp": softmax_mlp,
    "softmax_mlp_float32": lambda: softmax_mlp(jnp.float32, 2e-6),
    "saddle": saddle,
    "equinox_mlp": equinox_mlp,
    "linen_mlp": linen_mlp,
    "nnx_linear": nnx_linear,
    "haiku_mlp": haiku_mlp,
}


def multiply(matrix, v):
    return matrix @ v


def scale(diagonal, v):
    return diagonal * v


def diagonal(entries, dtype=jnp.float64):
    """A diagonal matrix as a product and the parameters of its space."""
    entries = jnp.asarray(entries, dtype)
    return Partial(scale, entries), jnp.zeros_like(entries)


def spread(n=400, seed=0):
    """A spectrum like a network's: some outliers, negative ones, the rest close to 0."""
    rng = np.random.default_rng(seed)
    outliers = np.array([9.0, -8.0, 7.5, 6.0, 5.0, -4.0, 3.0, 2.5, 2.0])
    return np.concatenate([outliers, rng.normal(size=n - outliers.size) * 0.3])


def best(values, k, which="magnitude"):
    keys = {"magnitude": -np.abs(values), "largest": -values, "smallest": values}
    return values[np.argsort(keys[which], kind="stable")][:k]


def rows(vectors, k):
    """The leading axis as rows of a matrix."""
    vectors = eqx.filter(vectors, eqx.is_inexact_array)
    return np.stack(
        [ravel_pytree(jax.tree.map(lambda a, i=i: a[i], vectors))[0] for i in range(k)]
    ).astype(float)
