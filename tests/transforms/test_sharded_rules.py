"""Every rule with parameters and batch over four devices, on axes of either kind, against one.

The number of virtual CPU devices is fixed when JAX starts, so this file runs itself once more.
"""

import json
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from igr import transforms
from igr.per_example import grouped_gradients, per_example_gradients

RULES = {
    "egr": transforms.egr(0.1, 0.3, 0.9),
    "metric_sgd": transforms.metric_sgd(0.1, 0.02),
    "absolute_hessian": transforms.metric_decay(0.02, "absolute_hessian"),
    "selective_l2_sgd": transforms.selective_l2_sgd(0.1, 0.02, 0.3),
    "l2_stopped_sgd": transforms.l2_stopped_sgd(0.1, 0.02, 1),
    "l2_stopped_selective_sgd": transforms.l2_stopped_selective_sgd(0.1, 0.02, 1, 0.3),
    "winsorized_sgd": transforms.winsorized_sgd(0.1, 20),
    "winsorized_gradient": optax.with_extra_args_support(optax.sgd(0.1)),
    "median_of_means_sgd": transforms.median_of_means_sgd(0.1, 4),
}


QUICK = "egr", "winsorized_sgd"


@pytest.mark.parametrize(
    ("axes", "names"),
    [
        ("Auto", QUICK),
        pytest.param("Auto", tuple(RULES), marks=pytest.mark.slow),
        pytest.param("Explicit", tuple(RULES), marks=pytest.mark.slow),
    ],
    ids=["Auto, some", "Auto", "Explicit"],
)
def test_same_numbers_and_layout(on_four_devices, axes, names):
    found = on_four_devices(__file__, axes, *names)
    assert tuple(found) == names
    for name, of in found.items():
        assert of["difference"] < 1e-12, name
        assert of["moved"] > 1e-3, name
        assert of["sharded"], name


def two_steps_of_all(names, params, batch, lying=None):
    """One program, for the compiler is most of the cost.

    On explicit axes a product over one of them says how its result lies.
    """

    def example_loss_fn(params, example):
        x, y = example
        hidden = jnp.tanh(x @ params["w"] + params["b"])
        outputs = jnp.einsum("j,jk->k", hidden, params["v"], out_sharding=lying)
        return jnp.sum((outputs - y) ** 2)

    return {name: two_steps(name, example_loss_fn, params, batch) for name in names}


def two_steps(name, example_loss_fn, params, batch):
    optimizer = RULES[name]

    def value_fn(p):
        return jnp.mean(jax.vmap(example_loss_fn, (None, 0))(p, batch))

    def gradient(p):
        if name == "winsorized_sgd":
            return per_example_gradients(example_loss_fn, p, batch)
        if name == "winsorized_gradient":
            return transforms.winsorized_gradient(example_loss_fn, p, batch, 20)
        if name == "median_of_means_sgd":
            return grouped_gradients(example_loss_fn, p, batch, 4)
        return jax.grad(value_fn)(p)

    state = optimizer.init(params)
    for _ in range(2):
        updates, state = optimizer.update(gradient(params), state, params, value_fn=value_fn)
        params = optax.apply_updates(params, updates)
    return params


def main(axes, *names):
    jax.config.update("jax_enable_x64", True)
    assert len(jax.devices()) == 4
    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(4, 8)), "b": rng.normal(size=8), "v": rng.normal(size=(8, 2))}
    batch = rng.normal(size=(16, 4)), rng.normal(size=(16, 2))
    of_these = partial(two_steps_of_all, names)
    one = jax.jit(of_these)(*jax.device_put((params, batch), jax.devices()[0]))
    specs = {"w": PartitionSpec(None, "y"), "b": PartitionSpec("y"), "v": PartitionSpec("y", None)}
    kind = getattr(AxisType, axes)
    mesh = jax.make_mesh((2, 2), ("x", "y"), axis_types=(kind, kind))
    shardings = {k: NamedSharding(mesh, s) for k, s in specs.items()}
    sharded = {k: jax.device_put(params[k], shardings[k]) for k in params}
    split = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("x")))
    lying = PartitionSpec(None) if axes == "Explicit" else None
    layout = dict.fromkeys(names, shardings)
    with jax.set_mesh(mesh):
        steps = jax.jit(lambda p, b, lying=lying: of_these(p, b, lying), out_shardings=layout)
        four = steps(sharded, split)
    results = {
        name: {
            "difference": max(float(abs(np.asarray(a[k]) - b[k]).max()) for k in params),
            "moved": max(float(abs(params[k] - a[k]).max()) for k in params),
            "sharded": all(b[k].sharding == shardings[k] for k in params),
        }
        for name, a, b in ((name, one[name], four[name]) for name in names)
    }
    print(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
