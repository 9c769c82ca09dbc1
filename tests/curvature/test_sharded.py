"""Products and solvers with parameters and batch over four devices, on axes of either kind.

The number of virtual CPU devices is fixed when JAX starts, so this file runs itself once more.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from igr.curvature import hessian_product, top_eigenpairs, trace


def work(params, batch, lying=None, solvers=()):
    """By name, what has to come out the same. One program, for the compiler is most of the cost.

    On explicit axes a product over one of them says how its result lies.
    """

    def example_loss_fn(params, example):
        x, y = example
        hidden = jnp.tanh(x @ params["w"] + params["b"])
        outputs = jnp.einsum("j,jk->k", hidden, params["v"], out_sharding=lying)
        return jnp.sum((outputs - y) ** 2)

    product = hessian_product(example_loss_fn, params, batch)
    found = {
        "hessian": product(params),
        "hessian_chunked": hessian_product(example_loss_fn, params, batch, chunk=6)(params),
        "trace": trace(product, params),
    }
    for method in solvers:
        pairs = top_eigenpairs(product, params, 3, method=method, tol=1e-8, max_products=2000)
        found[method] = (pairs.values, pairs.vectors["w"] ** 2)
    return found


PRODUCTS, SOLVERS = ("hessian", "hessian_chunked", "trace"), ("lanczos", "subspace")


@pytest.mark.parametrize(
    ("axes", "solvers"),
    [
        ("Auto", ()),
        pytest.param("Auto", SOLVERS, marks=pytest.mark.slow),
        pytest.param("Explicit", SOLVERS, marks=pytest.mark.slow),
    ],
)
def test_same_numbers(on_four_devices, axes, solvers):
    differences = on_four_devices(__file__, axes, *solvers)
    assert set(differences) == {*PRODUCTS, *solvers}
    assert max(differences.values()) < 1e-7, differences


def difference(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.abs(np.asarray(x) - np.asarray(y)).max()) for x, y in pairs)


def main(axes, *solvers):
    jax.config.update("jax_enable_x64", True)
    assert len(jax.devices()) == 4
    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(4, 8)), "b": rng.normal(size=8), "v": rng.normal(size=(8, 2))}
    batch = rng.normal(size=(16, 4)), rng.normal(size=(16, 2))
    on_one = jax.device_put((params, batch), jax.devices()[0])
    one = jax.jit(lambda p, b: work(p, b, None, solvers))(*on_one)
    kind = getattr(AxisType, axes)
    mesh = jax.make_mesh((2, 2), ("x", "y"), axis_types=(kind, kind))
    specs = {"w": PartitionSpec(None, "y"), "b": PartitionSpec("y")}
    specs["v"] = PartitionSpec("y", None)
    sharded = {k: jax.device_put(params[k], NamedSharding(mesh, specs[k])) for k in params}
    split = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("x")))
    lying = PartitionSpec(None) if axes == "Explicit" else None
    with jax.set_mesh(mesh):
        four = jax.jit(lambda p, b, lying=lying: work(p, b, lying, solvers))(sharded, split)
    results = {name: difference(one[name], four[name]) for name in one}
    print(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
