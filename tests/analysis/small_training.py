"""Small networks and sets of examples on which training is tested."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from analysis.data import Classification, TrainTest
from analysis.models import MLP
from analysis.training import Options, Steps, train


def sgd(settings):
    return optax.sgd(settings["learning_rate"])


def network(key):
    return MLP(3, 2, 4, 1, jnp.tanh, key=key)


def start_of(seed):
    """The network that seed starts from."""
    return network(jax.random.split(jax.random.key(seed))[0])


def classes(number=12, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(number, 3))
    y = (x[:, 0] + 0.5 * rng.normal(size=number) > 0).astype(int)
    return Classification(x, y, 2)


def two_classes():
    return TrainTest(classes(), classes(8, 1), "random")


def leaves(model):
    return jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))


def run(data, **changed):
    given = {"grid": {"learning_rate": (0.3,)}, "seeds": (0,), "stop": Steps(2)}
    given |= {name: changed.pop(name) for name in list(changed) if name in given}
    make_model = changed.pop("make_model", network)
    make_optimizer = changed.pop("make_optimizer", sgd)
    options = Options(**({"batch_size": None, "samples": 1} | changed))
    return train(make_model, make_optimizer, data, **given, options=options)
