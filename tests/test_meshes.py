"""Every function over a batch, with the batch spread over four devices on axes of either kind.

The number of virtual CPU devices is fixed when JAX starts, so this file runs itself once more.
"""

import contextlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import igr
from igr import curvature, diagnostics, penalties, per_example, transforms
from igr.meshes import on_any_mesh

KEY = jax.random.key(0)


def apply_fn(params, x):
    return jnp.tanh(x @ params["w"] + params["b"]) @ params["v"]


def example_loss_fn(params, example):
    return jnp.sum((apply_fn(params, example[0]) - example[1]) ** 2)


def output_loss(outputs, y):
    return jnp.sum((outputs - y) ** 2)


def mean_loss(params, batch):
    return jnp.mean(jax.vmap(example_loss_fn, (None, 0))(params, batch))


def hessian(params, batch, **options):
    return curvature.hessian_product(example_loss_fn, params, batch, **options)


def steps(rule, gradients=None):
    """Two steps of a rule: what it returns must have the type of the parameters."""

    def run(params, batch):
        state = rule.init(params)
        for _ in range(2):
            found = (
                jax.grad(mean_loss)(params, batch)
                if gradients is None
                else gradients(params, batch)
            )
            extra = {} if gradients else {"value_fn": lambda p: mean_loss(p, batch)}
            updates, state = rule.update(found, state, params, **extra)
            params = optax.apply_updates(params, updates)
        return params

    return run


def each(params, batch, **options):
    return per_example.per_example_gradients(example_loss_fn, params, batch, **options)


def groups(params, batch):
    return per_example.grouped_gradients(example_loss_fn, params, batch, 4)


def of_params(penalty, *options, **more):
    def run(params, batch):
        return jax.grad(lambda p: penalty(apply_fn, p, batch[0], *options, **more))(params)

    return run


def monitored(params, batch):
    monitor = igr.Monitor(
        ["slope", "coherence", "sharpness", "tangent_kernel_trace"],
        example_loss_fn=example_loss_fn,
        apply_fn=apply_fn,
        learning_rate=1e-4,
    )
    return {name: jnp.float64(x) for name, x in monitor(params, batch, 0).items()}


def on_inputs(fn, *options, **more):
    return lambda params, batch: fn(apply_fn, params, batch[0], *options, **more)


def on_examples(fn, *options, **more):
    return lambda params, batch: fn(example_loss_fn, params, batch, *options, **more)


FUNCTIONS = {
    "hessian": lambda p, b: hessian(p, b)(p),
    "hessian in parts of the mesh": lambda p, b: hessian(p, b, chunk=8)(p),
    "hessian in other parts": lambda p, b: hessian(p, b, chunk=6)(p),
    "fisher": lambda p, b: curvature.fisher_product(example_loss_fn, p, b, chunk=4)(p),
    "gauss_newton": lambda p, b: curvature.gauss_newton_product(apply_fn, output_loss, p, b)(p),
    "sharpness": lambda p, b: curvature.sharpness(example_loss_fn, p, b, tol=1e-9).value,
    "eigenpairs": lambda p, b: curvature.top_eigenpairs(hessian(p, b), p, 3, tol=1e-9).values,
    "trace": lambda p, b: curvature.trace(hessian(p, b), p),
    "spectral_density": lambda p, b: (
        curvature.spectral_density(hessian(p, b), p, num_products=10, num_probes=2).density
    ),
    "sgd_stability": lambda p, b: (
        curvature.sgd_stability(example_loss_fn, p, b, 0.01, 4, tol=1e-9).growth
    ),
    "coherence": on_examples(diagnostics.coherence),
    "coherence in parts": on_examples(diagnostics.coherence, chunk=4),
    "coherence by signs": on_examples(diagnostics.coherence, method="random_signs", probes=3),
    "coherence_from_batches": lambda p, b: diagnostics.coherence_from_batches(groups(p, b), 4),
    "stiffness": on_examples(diagnostics.stiffness),
    "class_stiffness": on_examples(diagnostics.class_stiffness, jnp.arange(16) % 2, 2),
    "batch_sharpness": on_examples(diagnostics.batch_sharpness, 4),
    "tangent_kernel": on_inputs(diagnostics.tangent_kernel),
    "tangent_kernel_trace": on_inputs(diagnostics.tangent_kernel_trace),
    "tangent_kernel_trace_estimate": on_inputs(diagnostics.tangent_kernel_trace_estimate),
    "tangent_kernel_logdet": on_inputs(diagnostics.tangent_kernel_logdet),
    "tangent_kernel_alignment": on_inputs(diagnostics.tangent_kernel_alignment, jnp.arange(16) % 2),
    "example_kernel_traces": on_inputs(diagnostics.example_kernel_traces),
    "geometric_complexity": on_inputs(diagnostics.geometric_complexity),
    "geometric_complexity in parts": on_inputs(diagnostics.geometric_complexity, chunk=4),
    "geometric_complexity by signs": on_inputs(
        diagnostics.geometric_complexity, method="random_signs", key=KEY
    ),
    "per_example_gradients": each,
    "per_example_gradients in parts": lambda p, b: each(p, b, chunk=4),
    "grouped_gradients": groups,
    "winsorized_gradient": steps(
        optax.sgd(0.1),
        lambda p, b: transforms.winsorized_gradient(example_loss_fn, p, b, 20),
    ),
    "winsorized_sgd": steps(transforms.winsorized_sgd(0.1, 20), each),
    "median_of_means_sgd": steps(transforms.median_of_means_sgd(0.1, 4), groups),
    "median_of_means_sgd of examples": steps(transforms.median_of_means_sgd(0.1, 4), each),
    "egr": steps(transforms.egr(0.1, 0.3)),
    "absolute_hessian": steps(transforms.metric_decay(0.02, "absolute_hessian")),
    "selective_l2_sgd": steps(transforms.selective_l2_sgd(0.1, 0.02, 0.3)),
    "drift_adjusted": steps(transforms.drift_adjusted()),
    "gradient_similarity_trace": of_params(penalties.gradient_similarity_trace),
    "gradient_similarity_trace by signs": of_params(
        penalties.gradient_similarity_trace, method="random_signs", key=KEY
    ),
    "gradient_similarity_logdet": of_params(penalties.gradient_similarity_logdet),
    "spectral_penalty": of_params(penalties.spectral_penalty, KEY),
    "spectral_penalty by examples": of_params(penalties.spectral_penalty, KEY, draw="example"),
    "frobenius_penalty": of_params(penalties.frobenius_penalty),
    "jacobian_penalty": of_params(penalties.jacobian_penalty),
    "double_backprop": lambda p, b: jax.grad(penalties.double_backprop, 1)(example_loss_fn, p, *b),
}


ON_BOTH = (
    "hessian in other parts",
    "coherence",
    "stiffness",
    "grouped_gradients",
    "winsorized_gradient",
    "tangent_kernel_trace",
    "spectral_penalty",
)
# Calls outside of `jax.set_mesh`: the mesh is known from the arrays alone.
WITHOUT_CONTEXT = ("hessian in parts of the mesh", "stiffness", "grouped_gradients", "trace")


@pytest.fixture(scope="module")
def differences(on_four_devices):
    return on_four_devices(__file__)


def test_a_fault_of_the_function_itself_is_met_once():
    calls = []

    @on_any_mesh
    def fails(x):
        calls.append(x)
        raise ValueError("a fault of its own")

    mesh = jax.make_mesh((1,), ("d",), axis_types=(AxisType.Explicit,))
    with pytest.raises(ValueError, match="a fault of its own"):
        fails(jax.device_put(jnp.ones(2), NamedSharding(mesh, PartitionSpec("d"))))
    assert len(calls) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "axes"),
    [(name, "Explicit") for name in (*FUNCTIONS, "monitor")] + [(name, "Auto") for name in ON_BOTH],
)
def test_same_numbers(name, axes, differences):
    found = differences[axes][name]
    assert not isinstance(found, str), found
    assert found < 1e-7


def main():
    jax.config.update("jax_enable_x64", True)
    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(4, 8)), "b": rng.normal(size=8), "v": rng.normal(size=(8, 2))}
    batch = rng.normal(size=(16, 4)), rng.normal(size=(16, 2))
    params, batch = jax.tree.map(jnp.asarray, (params, batch))
    expected = {name: jax.jit(function)(params, batch) for name, function in FUNCTIONS.items()}
    expected["monitor"] = monitored(params, batch)
    found = {
        axes: differences_on(getattr(AxisType, axes), params, batch, expected)
        for axes in ("Auto", "Explicit")
    }
    print(json.dumps(found))


def differences_on(axes, params, batch, expected):
    mesh = jax.make_mesh((4,), ("d",), axis_types=(axes,))
    params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    batch = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("d")))
    found = {}
    for name, function in (FUNCTIONS | {"monitor": monitored}).items():
        if axes == AxisType.Auto and name not in ON_BOTH:
            continue
        way, context = jax.jit(function), jax.set_mesh(mesh)
        if name in ("monitor", "coherence", "hessian in other parts"):
            way = function
        if name in WITHOUT_CONTEXT:
            context = contextlib.nullcontext()
        found[name] = difference(way, context, params, batch, expected[name])
    return found


def difference(run, context, params, batch, expected):
    try:
        with context:
            result = run(params, batch)
    except Exception as error:  # one that fails does not hide the others
        return f"{type(error).__name__}: {error}"
    pairs = zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True)
    return max(float(np.max(np.abs(np.asarray(a) - np.asarray(b)))) for a, b in pairs)


if __name__ == "__main__":
    main()
