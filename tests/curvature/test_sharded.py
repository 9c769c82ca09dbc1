"""Products and solvers with parameters and batch sharded over four devices, against one.

The number of virtual CPU devices is fixed when JAX starts, so this file runs itself once more.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from igr.curvature import hessian_product, top_eigenpairs, trace


def example_loss_fn(params, example):
    x, y = example
    return jnp.sum((jnp.tanh(x @ params["w"] + params["b"]) @ params["v"] - y) ** 2)


def work(params, batch):
    """By name, what has to come out the same. One program, for the compiler is most of the cost."""
    product = hessian_product(example_loss_fn, params, batch)
    found = {
        "hessian": product(params),
        "hessian_chunked": hessian_product(example_loss_fn, params, batch, chunk=6)(params),
        "trace": trace(product, params),
    }
    for method in ("lanczos", "subspace"):
        pairs = top_eigenpairs(product, params, 3, method=method, tol=1e-8, max_products=2000)
        found[method] = (pairs.values, pairs.vectors["w"] ** 2)
    return found


NAMES = ("hessian", "hessian_chunked", "trace", "lanczos", "subspace")


@pytest.fixture(scope="module")
def differences(on_four_devices):
    return on_four_devices(__file__)


@pytest.mark.parametrize("name", NAMES)
def test_same_numbers(differences, name):
    assert differences[name] < 1e-7


def main():
    jax.config.update("jax_enable_x64", True)
    assert len(jax.devices()) == 4
    mesh = Mesh(np.array(jax.devices()).reshape(4), ("d",))
    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(4, 8)), "b": rng.normal(size=8), "v": rng.normal(size=(8, 2))}
    batch = rng.normal(size=(16, 4)), rng.normal(size=(16, 2))
    specs = {"w": PartitionSpec(None, "d"), "b": PartitionSpec("d"), "v": PartitionSpec("d", None)}
    sharded = {k: jax.device_put(params[k], NamedSharding(mesh, specs[k])) for k in params}
    split = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("d")))
    single = jax.device_put((params, batch), jax.devices()[0])
    one, four = jax.jit(work)(*single), jax.jit(work)(sharded, split)
    results = {
        name: max(
            float(np.abs(np.asarray(a) - np.asarray(b)).max())
            for a, b in zip(jax.tree.leaves(one[name]), jax.tree.leaves(four[name]), strict=True)
        )
        for name in NAMES
    }
    print(json.dumps(results))


if __name__ == "__main__":
    main()
