"""Convolutions as products: the same numbers, and right derivatives on meshes of two axes.

The number of virtual CPU devices is fixed when JAX starts, so this file runs itself once more.
"""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import igr
from igr import curvature, diagnostics, penalties, per_example, transforms
from igr.convolutions import differentiable_when_spread
from tests.quick import quick

RNG = np.random.default_rng(0)
LAYOUT: Any = ("NHWC", "HWIO", "NHWC")
# The kernel's shape, the input's, and how they meet.
KINDS = {
    "grouped": ((3, 3, 2, 4), (6, 5, 4), {"feature_group_count": 2}),
    "depthwise": ((3, 2, 1, 8), (6, 5, 4), {"feature_group_count": 4}),
    "strided": ((3, 3, 2, 4), (6, 5, 4), {"feature_group_count": 2, "window_strides": (2, 3)}),
    "dilated": (
        (2, 3, 1, 4),
        (6, 5, 4),
        {"feature_group_count": 4, "rhs_dilation": (2, 1), "padding": "VALID"},
    ),
    "transposed": (
        (3, 3, 2, 4),
        (3, 4, 4),
        {"feature_group_count": 2, "lhs_dilation": (2, 3), "padding": ((1, 2), (0, 1))},
    ),
    "cropped": (
        (3, 3, 2, 4),
        (6, 5, 4),
        {"feature_group_count": 2, "padding": ((-1, 1), (2, -2))},
    ),
    "channels first": (
        (4, 2, 3, 3),
        (4, 6, 5),
        {"feature_group_count": 2, "dimension_numbers": ("NCHW", "OIHW", "NCHW")},
    ),
    "kernel larger than its input": (
        (3, 3, 2, 4),
        (2, 2, 4),
        {"feature_group_count": 2, "padding": "VALID"},
    ),
}


def convolved(kernel, x, *, window_strides=(1, 1), padding="SAME", **options):
    more: dict[str, Any] = {"dimension_numbers": LAYOUT} | options
    return lax.conv_general_dilated(x[None], kernel, window_strides, padding, **more)[0]


def of_kind(name):
    kernel, x, options = KINDS[name]
    arrays = jnp.asarray(RNG.normal(size=kernel)), jnp.asarray(RNG.normal(size=x))
    return (lambda kernel, x: convolved(kernel, x, **options)), *arrays


@pytest.fixture
def as_on_several_devices(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 4)


def convolutions_in(fn, *args):
    return str(jax.make_jaxpr(fn)(*args)).count("conv_general_dilated[")


@pytest.mark.parametrize("name", quick(list(KINDS), "grouped", "cropped", "channels first"))
def test_the_same_numbers(as_on_several_devices, name):
    apply, kernel, x = of_kind(name)
    changed = differentiable_when_spread(apply)
    assert convolutions_in(apply, kernel, x) == 1
    assert convolutions_in(changed, kernel, x) == 0

    def of(function):
        """Its value and gradients, in one program."""

        def total(kernel, x):
            y = function(kernel, x)
            return jnp.sum(jnp.sin(y)), y

        return jax.jit(jax.grad(total, (0, 1), has_aux=True))(kernel, x)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), of(changed), of(apply))


def test_the_precision_is_that_of_the_convolution(as_on_several_devices):
    apply, kernel, x = of_kind("grouped")
    kernel, x = kernel.astype(jnp.bfloat16), x.astype(jnp.bfloat16)
    found, expected = differentiable_when_spread(apply)(kernel, x), apply(kernel, x)
    assert found.dtype == expected.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(float), expected.astype(float), rtol=0.01, atol=0.01)


def test_only_what_has_to_be_changed_is(as_on_several_devices):
    kernel, x = jnp.ones((3, 3, 4, 4)), jnp.ones((6, 5, 4))
    assert convolutions_in(differentiable_when_spread(convolved), kernel, x) == 1
    assert convolutions_in(differentiable_when_spread(convolved, each=True), kernel, x) == 0
    fixed = differentiable_when_spread(lambda x: convolved(kernel, x), each=True)
    assert convolutions_in(fixed, x) == 1  # no derivative is taken by a kernel


def test_inside_of_loops_branches_and_calls(as_on_several_devices):
    kernel = jnp.asarray(RNG.normal(size=(2, 3, 3, 1, 4)))
    x = jnp.asarray(RNG.normal(size=(6, 5, 4)))

    def layer(x, kernel):
        return jnp.tanh(convolved(kernel, x, feature_group_count=4))

    def apply(kernels, x):
        x, _ = lax.scan(lambda x, k: (jax.checkpoint(layer)(x, k), None), x, kernels)
        x = jax.jit(layer)(x, kernels[0])
        x = lax.cond(x[0, 0, 0] > -2, layer, lambda x, k: x, x, kernels[1])
        return lax.fori_loop(0, 2, lambda i, x: layer(x, kernels[i]), x)

    changed = differentiable_when_spread(apply)
    assert convolutions_in(apply, kernel, x) == 4
    assert convolutions_in(changed, kernel, x) == 0
    along = jnp.asarray(RNG.normal(size=kernel.shape))
    pairs = [
        jax.jit(lambda k, a, f=f: jax.jvp(lambda k: f(k, x), (k,), (a,)))(kernel, along)
        for f in (changed, apply)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), *pairs)


def test_what_must_know_values_or_fails_is_left_alone(as_on_several_devices):
    def branches(kernel, x):
        return convolved(kernel, x, feature_group_count=2) if kernel[0, 0, 0, 0] > 0 else x

    kernel, x = jnp.ones((3, 3, 2, 4)), jnp.ones((6, 5, 4))
    np.testing.assert_array_equal(
        differentiable_when_spread(branches)(kernel, x), branches(kernel, x)
    )
    with pytest.raises(KeyError, match="no such leaf"):
        differentiable_when_spread(lambda p: {}["no such leaf"])(kernel)


def apply_fn(params, x):
    hidden = jnp.tanh(convolved(params["first"], x, feature_group_count=4))
    # A kernel of unit norm: no leaf enters the convolution itself.
    scaled = params["second"] / jnp.linalg.norm(params["second"])
    hidden = jnp.tanh(convolved(scaled, hidden, window_strides=(2, 2)))
    return jnp.mean(hidden, (0, 1)) @ params["w"]


def example_loss_fn(params, x):
    return jnp.sum(jnp.log(jnp.cosh(apply_fn(params, x) - 0.1)))


def mean_loss(params, x):
    return jnp.mean(jax.vmap(example_loss_fn, (None, 0))(params, x))


FUNCTIONS = {
    "per_example_gradients": lambda p, x: per_example.per_example_gradients(example_loss_fn, p, x),
    "grouped_gradients": lambda p, x: per_example.grouped_gradients(example_loss_fn, p, x, 2),
    "coherence": lambda p, x: diagnostics.coherence(example_loss_fn, p, x)[:4],
    "hessian_product": lambda p, x: curvature.hessian_product(example_loss_fn, p, x)(p),
    "sgd_stability": lambda p, x: (
        curvature.sgd_stability(example_loss_fn, p, x, 0.01, 4, tol=1e-9).growth
    ),
    "tangent_kernel": lambda p, x: diagnostics.tangent_kernel(apply_fn, p, x),
    "spectral_penalty": lambda p, x: jax.grad(
        lambda p: penalties.spectral_penalty(apply_fn, p, x, jax.random.key(0))
    )(p),
    "egr": lambda p, x: transforms.egr(0.1, 0.3).update(
        p, transforms.egr(0.1, 0.3).init(p), p, value_fn=lambda p: mean_loss(p, x)
    )[0],
    "run": lambda p, x: igr.run(optax.sgd(0.1), lambda p: mean_loss(p, x), p, 2).params,
}


@pytest.fixture(scope="module")
def differences(on_four_devices):
    return on_four_devices("-m", "tests.test_convolutions")


@pytest.mark.slow
@pytest.mark.parametrize("axes", ["Auto", "Explicit"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_examples_on_one_axis_of_two(differences, name, axes):
    result = differences[axes][name]
    assert not isinstance(result, str), result
    assert result < 1e-9


@pytest.mark.slow
def test_the_fault_is_still_there(differences):
    """When `jax.grad` is right where this was written against it, `igr.convolutions` can go."""
    assert differences["Auto"]["jax.grad"] > 1e-3


def main():
    jax.config.update("jax_enable_x64", True)
    shapes = {"first": (3, 3, 1, 4), "second": (3, 3, 4, 3), "w": (3, 2)}
    params = {name: jnp.asarray(RNG.normal(size=shape)) for name, shape in shapes.items()}
    x = jnp.asarray(RNG.normal(size=(12, 5, 5, 4)))
    functions = FUNCTIONS | {"jax.grad": jax.grad(mean_loss)}
    expected = {name: jax.jit(function)(params, x) for name, function in functions.items()}
    results = {axes: {} for axes in ("Auto", "Explicit")}
    for axes, found in results.items():
        kinds = (getattr(AxisType, axes),) * 2
        mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=kinds)
        p = jax.device_put(params, NamedSharding(mesh, P()))
        spread = jax.device_put(x, NamedSharding(mesh, P("data")))
        for name, function in functions.items():
            found[name] = difference(jax.jit(function), mesh, p, spread, expected[name])
    print(json.dumps(results))


def difference(run, mesh, params, x, expected):
    try:
        with jax.set_mesh(mesh):
            found = run(params, x)
    except Exception as error:  # one that fails does not hide the others
        return f"{type(error).__name__}: {error}"[:600]
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return max(float(np.max(np.abs(np.asarray(a) - np.asarray(b)))) for a, b in pairs)


if __name__ == "__main__":
    main()
