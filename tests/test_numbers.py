"""Numbers of any kind for every number argument, and no text: what works is one function's gift."""

from decimal import Decimal
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sympy

import igr
from igr import curvature, diagnostics, penalties, per_example, transforms
from tests.quick import quick

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(6, 3)))
W = {"w": jnp.asarray(RNG.normal(size=(3, 2)))}
GD = igr.methods.gradient_descent()
EQUATION = igr.modified_equation(GD, 1)


def apply(params, x):
    return jnp.tanh(x @ params["w"])


def example_loss(params, x):
    return jnp.sum(apply(params, x) ** 2)


def loss(params):
    return jnp.mean(jax.vmap(example_loss, (None, 0))(params, X))


def updated(rule, gradient=None):
    gradient = jax.grad(loss)(W) if gradient is None else gradient
    return rule.update(gradient, rule.init(W), W, value_fn=loss)[0]


def of_examples(rule):
    return updated(rule, per_example.per_example_gradients(example_loss, W, X))


def moved(field):
    return field(0.0, W, None)


def decaying(t, y, args):
    return jax.tree.map(jnp.negative, y)


NUMBERS = {
    "egr": lambda n: updated(transforms.egr(n, n, n)),
    "metric_sgd": lambda n: updated(transforms.metric_sgd(n, n)),
    "selective_l2_sgd": lambda n: updated(transforms.selective_l2_sgd(n, n, n)),
    "l2_stopped_sgd": lambda n: updated(transforms.l2_stopped_sgd(n, n, 2, n)),
    "l2_stopped_selective_sgd": lambda n: updated(
        transforms.l2_stopped_selective_sgd(n, n, 0, n, selective_weight_decay=n)
    ),
    "drift_adjusted": lambda n: updated(transforms.drift_adjusted(n, n, n, n)),
    "winsorized_sgd": lambda n: of_examples(transforms.winsorized_sgd(n, 20, n)),
    "median_of_means_sgd": lambda n: of_examples(transforms.median_of_means_sgd(n, 2, n)),
    "match_implicit": lambda n: transforms.match_implicit(GD, n, n) + 1,
    "cancel_implicit": lambda n: transforms.cancel_implicit(GD, n),
    "tol": lambda n: curvature.sharpness(loss, W, tol=n).value,
    "width": lambda n: curvature.spectral_density(lambda v: v, W, num_products=1, width=n).density,
    "sgd_stability": lambda n: curvature.sgd_stability(example_loss, W, X, n, 2).growth,
    "share": lambda n: diagnostics.modified_loss_share(loss, W, n).share,
    "function_space_update": lambda n: (
        diagnostics.function_space_update(apply, W, X, lambda f: jnp.sum(f**2), n).update
    ),
    "sign_perturbed": lambda n: diagnostics.sign_perturbed(
        lambda p, e: example_loss(p, e[0]), W, (X, X), n, high=n
    ),
    "generalization_gap_bound": lambda n: diagnostics.generalization_gap_bound(
        jnp.array([0.5]), n, 3, lipschitz=n, smoothness=n
    ),
    "sgd_learning_rate_limit": lambda n: diagnostics.sgd_learning_rate_limit(n, n, 2, 6),
    "adam_stability_limit": lambda n: diagnostics.adam_stability_limit(n, n),
    "rademacher_bound": lambda n: diagnostics.rademacher_bound(apply, W, X, n),
    "gradient_similarity_logdet": lambda n: penalties.gradient_similarity_logdet(
        apply, W, X, ridge=n
    ),
    "vector_field": lambda n: moved(igr.vector_field(EQUATION, loss, n)),
    "modified_value_fn": lambda n: igr.modified_value_fn(EQUATION, loss, n)(W),
    "optimizer_of": lambda n: igr.run(igr.flows.optimizer_of(GD, n), loss, W, 2).params,
    "flow": lambda n: igr.flow(decaying, W, n, dt0=n, rtol=n, atol=n, optimizer_step=n).ys,
    "start of a flow": lambda n: igr.flow(decaying, W, 1.0, t0=n).ys,
}
FEW = ("selective_l2_sgd", "sgd_learning_rate_limit", "match_implicit")


@pytest.mark.parametrize("call", quick(NUMBERS, *FEW))
def test_numbers_of_any_kind(call):
    expected = call(0.5)
    for half in (
        Fraction(1, 2), Decimal("0.5"), sympy.Rational(1, 2), np.float32(0.5), np.array(0.5),
        jnp.bfloat16(0.5), jnp.asarray(0.5),
    ):  # fmt: skip
        found = call(half)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)


@pytest.mark.parametrize("call", quick(NUMBERS, *FEW))
def test_what_is_no_number_is_refused_by_name(call):
    for bad in ("0.5", b"1", True, 0.5 + 0j, np.array("0.5")):
        with pytest.raises(TypeError, match=r"^\w+ must (be a number|hold real numbers)"):
            call(bad)


COUNTS = {
    "draws": lambda n: diagnostics.noise_robustness(loss, W, [0.5], draws=n, chunk=n).mean,
    "num_classes": lambda n: (
        diagnostics.class_stiffness(example_loss, W, X, np.arange(6) % 2, n).between
    ),
    "max_steps": lambda n: igr.flow(decaying, W, 0.001, dt0=0.001, max_steps=n).ys,
    "probes": lambda n: (
        diagnostics.coherence(example_loss, W, X, method="random_signs", probes=n).alpha
    ),
    "chunk": lambda n: diagnostics.coherence(example_loss, W, X, chunk=n).alpha,
    "step": lambda n: updated(transforms.decay_until(0.1, n)),
    "batch_size": lambda n: diagnostics.sgd_region(0.1, n, 6).non_uniformity_limit,
}


@pytest.mark.parametrize("call", quick(COUNTS, "num_classes", "step", "batch_size"))
def test_counts_of_any_kind(call):
    expected = call(2)
    for two in (np.int32(2), np.uint8(2), np.array(2), jnp.asarray(2)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), call(two), expected)
    for bad in ("2", 2.0, True, np.array([2])):
        with pytest.raises(TypeError, match=r"must be an integer"):
            call(bad)
