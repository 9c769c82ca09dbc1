"""A network that can be differentiated in reverse alone: the numbers of the same one without."""

from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import igr
from igr import curvature, diagnostics, penalties, per_example, transforms
from igr.forward_mode import jvp

RNG = np.random.default_rng(0)
PARAMS = {"w": jnp.asarray(RNG.normal(size=(2, 4))), "v": jnp.asarray(RNG.normal(size=(4, 3)) / 2)}
X, Y = jnp.asarray(RNG.normal(size=(6, 2))), jnp.asarray(RNG.normal(size=(6, 3)))
BATCHES = X.reshape(3, 2, 2), Y.reshape(3, 2, 3)
KEY = jax.random.key(0)


def plain(x):
    return x * jnp.tanh(x)


def slope(x):
    return jnp.tanh(x) + x / jnp.cosh(x) ** 2


@jax.custom_vjp
def by_formula(x):
    return plain(x)


@jax.custom_vjp
def by_itself(x):  # its rule calls it again, so that not even its gradient has a forward derivative
    return plain(x)


by_formula.defvjp(lambda x: (plain(x), x), lambda x, g: (g * slope(x),))
by_itself.defvjp(lambda x: (by_itself(x), x), lambda x, g: (g * slope(x),))


@eqx.filter_custom_vjp
def by_equinox(x):
    return plain(x)


@by_equinox.def_fwd
def _forward(perturbed, x):
    del perturbed
    return by_equinox(x), x


@by_equinox.def_bwd
def _backward(residuals, g, perturbed, x):
    del perturbed, x
    return g * slope(residuals)


def evaluated_there(x):
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    compute = lambda z: np.asarray(z) * np.tanh(np.asarray(z))
    return jax.pure_callback(compute, shape, x, vmap_method="expand_dims")


@jax.custom_vjp
def on_the_host(x):
    return evaluated_there(x)


on_the_host.defvjp(lambda x: (on_the_host(x), x), lambda x, g: (g * slope(x),))


@jax.custom_jvp
def on_the_host_forwards(x):
    return evaluated_there(x)


@on_the_host_forwards.defjvp
def _along(primals, tangents):
    return on_the_host_forwards(primals[0]), tangents[0] * slope(primals[0])


ACTIVATIONS = {"by formula": by_formula, "by itself": by_itself, "by equinox": by_equinox}
OTHERS = {
    "on the host": on_the_host,
    "on the host, forwards": on_the_host_forwards,
    "in a scan": lambda x: jax.lax.scan(lambda c, _: (by_itself(c), None), x, None, 1)[0],
    "in a loop": lambda x: jax.lax.fori_loop(0, 1, lambda i, c: by_itself(c), x),
    "in a branch": lambda x: jax.lax.cond(x[0] < 1e9, by_itself, jnp.sin, x),
    "in a checkpoint": jax.checkpoint(by_itself),
    "compiled": jax.jit(by_itself),
    "in a map": lambda x: jax.lax.map(by_itself, x),
}


def network(activation):
    """A loss, a network, and what they are made of, with one activation."""

    def apply(params, x):
        return activation(x @ params["w"]) @ params["v"]

    def example_loss(params, example):
        return jnp.mean((apply(params, example[0]) - example[1]) ** 2)

    def loss(params):
        return jnp.mean(jax.vmap(example_loss, (None, 0))(params, (X, Y)))

    return SimpleNamespace(
        apply=apply,
        example_loss=example_loss,
        loss=loss,
        outputs=lambda params: jax.vmap(apply, (None, 0))(params, X),
        output_loss=lambda outputs: jnp.mean((outputs - Y) ** 2),
    )


def field(method, order, net):
    """A field where derivatives of the gradient are taken, up to the order's."""
    equation = igr.modified_equation(method, order)
    kept = {name: jax.tree.map(jnp.ones_like, PARAMS) for name in equation.kept}
    return igr.vector_field(equation, net.loss, 0.1)(1.0, (PARAMS, kept) if kept else PARAMS, None)


def decayed(rule, net, gradient, **extra):
    return rule.update(gradient(PARAMS), rule.init(PARAMS), PARAMS, **extra)[0]


def with_loss(rule):
    return lambda n: decayed(rule, n, jax.grad(n.loss), value_fn=n.loss)


def apart_from_the_loss(rule):
    return lambda n: decayed(
        rule, n, jax.grad(n.loss), apply_fn=n.outputs, output_loss_fn=n.output_loss
    )


squared = lambda f, y: jnp.mean((f - y) ** 2)
FUNCTIONS = {
    "hessian": lambda n: curvature.hessian_product(n.loss, PARAMS)(PARAMS),
    "hessian in chunks": lambda n: curvature.hessian_product(
        n.example_loss, PARAMS, (X, Y), chunk=4
    )(PARAMS),
    "fisher": lambda n: curvature.fisher_product(n.example_loss, PARAMS, (X, Y))(PARAMS),
    "fisher in chunks": lambda n: curvature.fisher_product(n.example_loss, PARAMS, (X, Y), chunk=4)(
        PARAMS
    ),
    "gauss_newton": lambda n: curvature.gauss_newton_product(n.apply, squared, PARAMS, (X, Y))(
        PARAMS
    ),
    "gauss_newton of all": lambda n: curvature.gauss_newton_product(
        n.outputs, n.output_loss, PARAMS
    )(PARAMS),
    "sgd_stability": lambda n: curvature.sgd_stability(
        n.example_loss, PARAMS, (X, Y), 0.1, 2, tol=1e-9
    )[:6],
    "field of order 2": lambda n: field(igr.methods.gradient_descent(), 2, n),
    "field of order 3": lambda n: field(igr.methods.nesterov(0.5), 3, n),
    "field of adam": lambda n: field(igr.methods.adam(0.5, 0.6), 2, n),
    "field of epochs": lambda n: igr.vector_field(
        igr.modified_equation(igr.methods.reshuffled_sgd(3), 2), n.example_loss, 0.1, BATCHES
    )(0.0, PARAMS, None),
    "sharpness": lambda n: curvature.sharpness(n.loss, PARAMS, tol=1e-9).value,
    "metric gauss_newton": apart_from_the_loss(transforms.metric_decay(0.1, "gauss_newton")),
    "metric hessian": with_loss(transforms.metric_decay(0.1)),
    "metric absolute_hessian": with_loss(
        transforms.metric_decay(0.1, "absolute_hessian", lanczos_steps=20)
    ),
    "egr": with_loss(transforms.egr(0.1, 0.1)),
    "egr_value_and_grad": lambda n: transforms.egr_value_and_grad(n.loss, 0.1)(PARAMS),
    "drift_adjusted": with_loss(transforms.scale_by_drift_adjusted_rate()),
    "selective decay": with_loss(transforms.selective_decay(0.1, 0.3)),
    "frobenius": lambda n: jax.value_and_grad(penalties.frobenius_penalty, 1)(n.apply, PARAMS, X),
    "jacobian": lambda n: jax.value_and_grad(penalties.jacobian_penalty, 1)(n.apply, PARAMS, X),
    "spectral": lambda n: jax.value_and_grad(penalties.spectral_penalty, 1)(
        n.apply, PARAMS, X, key=KEY
    ),
    "double_backprop": lambda n: jax.value_and_grad(penalties.double_backprop, 1)(
        n.example_loss, PARAMS, X, Y
    ),
    "geometric_complexity": lambda n: diagnostics.geometric_complexity(n.apply, PARAMS, X),
    "lipschitz": lambda n: diagnostics.lipschitz_bound(n.apply, PARAMS, X),
    "batch_sharpness": lambda n: diagnostics.batch_sharpness(n.example_loss, PARAMS, (X, Y), 2),
    "coherence": lambda n: diagnostics.coherence(n.example_loss, PARAMS, (X, Y)),
    "tangent_kernel": lambda n: diagnostics.tangent_kernel(n.apply, PARAMS, X),
    "mean of examples": lambda n: per_example.grouped_gradients(n.example_loss, PARAMS, (X, Y), 3),
}
"""By name, what must not depend on how the activation is differentiated."""


FEW = ("fisher", "gauss_newton of all")


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        pytest.param(name, "by itself", marks=[] if name in FEW else pytest.mark.slow)
        for name in FUNCTIONS
    ]
    + [(name, other) for name in FEW for other in ("by formula", "by equinox")]
    + [pytest.param(name, other, marks=pytest.mark.slow) for name in FEW for other in OTHERS],
)
def test_same_numbers(name, activation):
    found = jax.tree.leaves(FUNCTIONS[name](network((ACTIVATIONS | OTHERS)[activation])))
    expected = jax.tree.leaves(FUNCTIONS[name](network(plain)))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


def test_an_error_of_another_cause_is_raised_as_it_came():
    with pytest.raises(TypeError, match="incompatible shapes"):
        jvp(lambda x: x + jnp.zeros(3), (jnp.zeros(2),), (jnp.zeros(2),))
