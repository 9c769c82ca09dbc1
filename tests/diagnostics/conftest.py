"""Networks that use their parameters in every way that matters, and their gradients one by one."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igr.diagnostics import coherence, stiffness
from tests.quick import quick


class LeNet(nn.Module):
    """Two convolutions and two dense layers."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(2, (3, 3), param_dtype=float)(x.reshape(1, 6, 6, 1)))
        x = nn.avg_pool(nn.tanh(nn.Conv(3, (3, 3), param_dtype=float)(x)), (2, 2), (2, 2))
        x = nn.tanh(nn.Dense(5, param_dtype=float)(x.reshape(-1)))
        return nn.Dense(3, param_dtype=float)(x)


class Normed(nn.Module):
    """A normalization between two dense layers."""

    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm(param_dtype=float)(nn.Dense(5, param_dtype=float)(x))
        return nn.Dense(3, param_dtype=float)(nn.gelu(x))


def _recurrent(p, x):
    """One matrix used at every step of a scan."""
    state, _ = jax.lax.scan(lambda s, u: (jnp.tanh(p["w"] @ s + u), None), x[:4], x.reshape(-1, 4))
    return p["out"] @ state


def _tied(p, x):
    """One matrix used twice, the second time transposed."""
    return (jnp.tanh(x @ p["w"] + p["b"]) @ p["w"].T)[:3]


def _flax(model, d):
    return model.apply, jax.jit(model.init)(jax.random.key(0), jnp.zeros(d)), d


def _normal(*shape):
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape) / 2)


NETWORKS = {
    "mlp": lambda: _flax(
        nn.Sequential([nn.Dense(6, param_dtype=float), jnp.tanh, nn.Dense(3, param_dtype=float)]), 4
    ),
    "lenet": lambda: _flax(LeNet(), 36),
    "norm": lambda: _flax(Normed(), 4),
    "tied": lambda: (_tied, {"w": _normal(5, 4), "b": _normal(4), "count": jnp.arange(2)}, 5),
    "scan": lambda: (_recurrent, {"w": _normal(4, 4), "out": _normal(3, 4)}, 12),
}


@pytest.fixture(scope="session", params=quick(list(NETWORKS), "tied"))
def network(request):
    """A network, its loss, two batches (x, label) of 7 and 4, and all their gradients."""
    apply_fn, params, d = NETWORKS[request.param]()
    rng = np.random.default_rng(1)
    batches = [
        (jnp.asarray(rng.normal(size=(n, d))), jnp.asarray(rng.integers(0, 3, n))) for n in (7, 4)
    ]
    loss = cross_entropy(apply_fn)
    gradients = [dense_gradients(loss, params, batch) for batch in batches]
    return Network(apply_fn, params, loss, *batches, *gradients)


class Network(NamedTuple):
    """What the tests need of a network."""

    apply_fn: Callable
    params: Any
    loss: Callable
    batch: tuple
    other: tuple
    gradients: np.ndarray
    other_gradients: np.ndarray


@pytest.fixture(scope="session")
def measured(network):
    """Coherence and stiffness of the network, in one compilation: (found, signs, across)."""
    return jax.jit(
        lambda p, batch, other: (
            coherence(network.loss, p, batch),
            stiffness(network.loss, p, batch, kind="sign"),
            stiffness(network.loss, p, batch, other),
        )
    )(network.params, network.batch, network.other)


def cross_entropy(apply_fn):
    """The loss of one example (x, label)."""
    return lambda p, example: -jax.nn.log_softmax(apply_fn(p, example[0]))[example[1]]


def dense_gradients(example_loss_fn, params, batch):
    """The matrix of per-example gradients, one plain gradient after the other."""
    gradient = jax.jit(jax.grad(example_loss_fn, allow_int=True))
    rows = []
    for i in range(len(jax.tree.leaves(batch)[0])):
        g = gradient(params, jax.tree.map(lambda x, i=i: x[i], batch))
        rows.append([np.ravel(leaf) for leaf in jax.tree.leaves(g) if leaf.dtype == float])
    return np.array([np.concatenate(row) for row in rows])
