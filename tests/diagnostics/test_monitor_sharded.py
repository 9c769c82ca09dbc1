"""A monitor with parameters and batch sharded over four devices, against one.

The number of virtual CPU devices is fixed when JAX starts, so this file runs itself once more.
"""

import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import igr


def apply_fn(params, x):
    return jnp.tanh(x @ params["w"]) @ params["v"]


def example_loss_fn(params, example):
    return jnp.sum((apply_fn(params, example[0]) - example[1]) ** 2)


def monitor():
    return igr.Monitor(
        ["slope", "coherence", "sharpness", "tangent_kernel_trace"],
        every=2,
        example_loss_fn=example_loss_fn,
        apply_fn=apply_fn,
        learning_rate=1e-3,
    )


@pytest.mark.slow
def test_same_numbers_compiled_once_and_no_place_changed(on_four_devices):
    found = on_four_devices(__file__)
    assert found["compilations"][0] > 0
    assert found["compilations"][1:] == [0] * 6
    assert found["largest difference"] < 1e-7


def main():
    jax.config.update("jax_enable_x64", True)
    warnings.simplefilter("ignore", UserWarning)
    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(4, 8)), "v": rng.normal(size=(8, 2))}
    batch = rng.normal(size=(8, 4)), rng.normal(size=(8, 2))
    mesh = Mesh(np.array(jax.devices()), ("i",))
    place = lambda x, *axes: jax.device_put(x, NamedSharding(mesh, PartitionSpec(*axes)))
    sharded = {"w": place(params["w"], None, "i"), "v": place(params["v"], "i")}
    spread = jax.tree.map(lambda x: place(x, "i"), batch)
    whole = jax.tree.map(jnp.asarray, (params, batch))
    ours, plain = monitor(), monitor()
    step = jax.jit(lambda p: jax.tree.map(lambda x: 0.9 * x, p))
    compiled = []  # by the backend: a new sharding is compiled without tracing anew

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        compiled.extend([1] * event.endswith("backend_compile_duration"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    apart, compilations = [], []
    for i in range(7):
        before = len(compiled)
        row = ours(sharded, spread, i)
        compilations.append(len(compiled) - before)
        expected = plain(whole[0], whole[1], i)
        apart += [abs(float(row[k]) - float(expected[k])) for k in row]
        sharded, whole = step(sharded), (step(whole[0]), whole[1])
    print(json.dumps({"compilations": compilations, "largest difference": max(apart)}))


if __name__ == "__main__":
    main()
