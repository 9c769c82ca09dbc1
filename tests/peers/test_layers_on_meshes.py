"""Gradients of single examples and tangent kernels, the examples spread over four devices.

The number of virtual CPU devices is fixed when JAX starts, so this file runs itself once more.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from igr import diagnostics, per_example, transforms
from tests.peers.test_layers import LAYERS

pytestmark = pytest.mark.slow
N = 4
NAMES = (
    "dense", "dense on a sequence", "dense of equinox", "convolution of one axis", "convolution",
    "grouped", "depthwise", "transposed convolution", "embedding", "tied embedding", "layer norm",
    "attention", "attention with a mask", "lstm", "gru of equinox", "bilinear",
)  # fmt: skip
KERNELS = ("dense", "convolution", "embedding", "attention", "lstm", "bilinear")


def of_layer(name):
    apply, params, x = LAYERS[name]()
    return lambda p, x: jnp.ravel(apply(p, x)), params, x[:N]


def measured(name, apply, params, x):
    """What is compared, of examples that may be spread."""

    def loss(p, x):
        return jnp.sum(jnp.log(jnp.cosh(apply(p, x) - 0.1)))

    found = {
        "gradients": per_example.per_example_gradients(loss, params, x),
        "coherence": diagnostics.coherence(loss, params, x)[:4],
        "stiffness": diagnostics.stiffness(loss, params, x),
        "winsorized": transforms.winsorized_gradient(loss, params, x, 20),
        "groups": per_example.grouped_gradients(loss, params, x, 2),
    }
    if name in KERNELS:
        found["kernel"] = diagnostics.tangent_kernel(apply, params, x)
        found["trace"] = diagnostics.tangent_kernel_trace(apply, params, x)
    return found


@pytest.fixture(scope="module")
def found(on_four_devices):
    return on_four_devices("-m", "tests.peers.test_layers_on_meshes")


@pytest.mark.parametrize("axes", ["Auto", "Explicit"])
@pytest.mark.parametrize("name", NAMES)
def test_layer_of_spread_examples(found, name, axes):
    """As of examples on one device, which test_layers holds against a loop over them."""
    result = found[axes][name]
    assert not isinstance(result, str), result
    assert result < (1e-6 if name == "dense of equinox" else 1e-9)  # its weights are float32


def main():
    jax.config.update("jax_enable_x64", True)
    results = {axes: {} for axes in ("Auto", "Explicit")}
    for name in NAMES:
        apply, params, x = of_layer(name)
        run = jax.jit(lambda p, x, name=name, apply=apply: measured(name, apply, p, x))
        expected = run(params, x)
        for axes, of_kind in results.items():
            mesh = jax.make_mesh((4,), ("d",), axis_types=(getattr(AxisType, axes),))
            of_kind[name] = difference(run, mesh, params, x, expected)
    print(json.dumps(results))


def difference(run, mesh, params, x, expected):
    try:
        with jax.set_mesh(mesh):
            found = run(
                jax.device_put(params, NamedSharding(mesh, P())),
                jax.device_put(x, NamedSharding(mesh, P("d"))),
            )
    except Exception as error:  # one that fails does not hide the others
        return f"{type(error).__name__}: {error}"[:600]
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return max(float(np.max(np.abs(np.asarray(a) - np.asarray(b)))) for a, b in pairs)


if __name__ == "__main__":
    main()
