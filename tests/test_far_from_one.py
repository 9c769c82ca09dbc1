"""A loss times 1e-20 or 1e20 in float32: the same answers, up to the power of the scale."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import igr
from igr import curvature, diagnostics, penalties, per_example, transforms
from igr.curvature.tracking import follow_eigenpairs
from tests.quick import quick

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(6, 3)), jnp.float32)
Y = jnp.asarray(RNG.normal(size=6), jnp.float32)
A = jnp.asarray(RNG.normal(size=(12, 12)), jnp.float32)
A = A + A.T
V = jnp.zeros(12, jnp.float32)
GD = igr.modified_equation(igr.methods.gradient_descent(), 1)
RULE = igr.modified_equation(igr.methods.elementwise(igr.methods.g, {}), 1)
W = {"w": jnp.asarray(RNG.normal(size=(3, 2)), jnp.float32), "v": jnp.ones(2, jnp.float32)}
PATH = {k: jnp.stack([x, 1.1 * x, 0.9 * x]) for k, x in W.items()}


def network(p, x):
    return jnp.tanh(x @ p["w"]) @ p["v"]


class Scaled:
    """The losses of a regression, times c."""

    def __init__(self, c):
        self.c = jnp.float32(c)

    def of_example(self, p, x):
        return self.c * (network(p, x) - 0.3) ** 2 / 2

    def of_pair(self, p, pair):
        return self.c * (network(p, pair[0]) - pair[1]) ** 2 / 2

    def network(self, p, x):
        return self.c * network(p, x)

    def less_its_value(self, p, x):
        """Whose size says nothing of that of its gradient."""
        return self.of_example(p, x) - jax.lax.stop_gradient(self.of_example(p, x))

    def of_all(self, p):
        return jnp.mean(jax.vmap(self.of_example, (None, 0))(p, X))

    def quadratic(self, v):
        return self.c * (v @ (A @ v)) / 2

    def product(self, v):
        return self.c * (A @ v)

    def gradients(self):
        return per_example.per_example_gradients(self.of_example, W, X)

    def updated(self, rule, updates=None):
        updates = jax.grad(self.of_all)(W) if updates is None else updates
        found, _ = rule.update(updates, rule.init(W), W, value_fn=self.of_all)
        return jax.tree.leaves(found)


def subspace(s):
    found = curvature.top_eigenpairs(
        s.product, V, 2, method="subspace", tol=1e-4, max_products=3000
    )
    assert found.converged
    return found.values


def followed(s):
    pairs = follow_eigenpairs(s.product, V, jnp.eye(12, dtype=jnp.float32)[:2])
    for _ in range(6):
        pairs = follow_eigenpairs(s.product, V, pairs.vectors)
    return pairs.values


def monitored(s):
    measures = ["slope", "coherence", "stiffness", "sharpness", "batch_sharpness"]
    monitor = igr.Monitor(measures, example_loss_fn=s.of_example)
    row = monitor(W, X)
    power = {"slope": 1, "sharpness": 1, "batch_sharpness": 1}
    return [float(row[k]) / float(s.c) ** power.get(k, 0) for k in sorted(row)]


def compared(s):
    """The distances, and what is measured along them, each in its unit."""
    found = igr.compare(s.of_all, W, float(jnp.float32(0.02) / s.c), 8, (0, 1), record_every=4)
    measured = found.correction, found.remainder, found.h_sharpness, found.discrete.gradient_norm
    return np.stack([*measured[:3], measured[3] / float(s.c)])


# name: (what it returns, the power of the scale in it)
CALLS = {
    "coherence": (lambda s: diagnostics.coherence(s.of_example, W, X).alpha, 0),
    "size of the mean gradient": (
        lambda s: diagnostics.coherence(s.of_example, W, X).mean_gradient_norm,
        1,
    ),
    "size of gradients": (
        lambda s: diagnostics.coherence(s.of_example, W, X).root_mean_square,
        1,
    ),
    "coherence of batches": (
        lambda s: diagnostics.coherence_from_batches(s.gradients(), 2).alpha,
        0,
    ),
    "coherence by signs": (
        lambda s: diagnostics.coherence(s.of_example, W, X, method="random_signs").alpha,
        0,
    ),
    "coherence in chunks": (
        lambda s: diagnostics.coherence(s.of_example, W, X, chunk=4).alpha,
        0,
    ),
    "coherence of a loss of another size": (
        lambda s: diagnostics.coherence(s.less_its_value, W, X).alpha,
        0,
    ),
    "path": (lambda s: diagnostics.path_complexity(s.network, PATH, X), 1),
    "rademacher": (lambda s: diagnostics.rademacher_bound(s.network, W, X, 2.0), 1),
    "rademacher of an inverse": (
        lambda s: diagnostics.rademacher_bound(s.network, W, X, 2.0, inverse=lambda v: v),
        1,
    ),
    "rademacher of a path": (
        lambda s: diagnostics.rademacher_bound_of_path(s.network, PATH, X, jnp.ones(3)),
        1,
    ),
    "logarithm of the determinant": (
        lambda s: diagnostics.tangent_kernel_logdet(s.network, W, X) - 12 * jnp.log(s.c),
        0,
    ),
    "its derivative": (
        lambda s: jax.grad(
            lambda p: penalties.gradient_similarity_logdet(s.network, p, X, ridge=0.0)
        )(W)["v"],
        0,
    ),
    "alignment of a scaled network": (
        lambda s: diagnostics.tangent_kernel_alignment(s.network, W, X, Y, centered=True),
        0,
    ),
    "ranks": (
        lambda s: [*map(float, diagnostics.tangent_kernel_spectrum(s.network, W, X)[1:])],
        0,
    ),
    "direction of features": (
        lambda s: abs(diagnostics.feature_covariance_eigenpairs(s.network, W, X, 1).vectors["v"]),
        0,
    ),
    "stiffness": (lambda s: diagnostics.stiffness(s.of_example, W, X), 0),
    "alignment": (
        lambda s: diagnostics.tangent_kernel_alignment(network, W, X, s.c * Y),
        0,
    ),
    "root of the diagonal": (
        lambda s: diagnostics.root_diagonal_trace(s.quadratic, V, probes=3).value,
        0.5,
    ),
    "preconditioned sharpness": (
        lambda s: diagnostics.preconditioned_sharpness(s.quadratic, V, V + 1).value,
        1,
    ),
    "limit of the rate": (
        lambda s: diagnostics.sgd_learning_rate_limit(4 * s.c, 2 * s.c, 1, 50),
        -1,
    ),
    "boundary": (
        lambda s: diagnostics.sgd_region(jnp.float32(0.1) / s.c, 2, 9).boundary(3 * s.c),
        1,
    ),
    "growth": (
        lambda s: diagnostics.sgd_region(jnp.float32(0.1) / s.c, 2, 9).growth(3 * s.c, 2 * s.c),
        0,
    ),
    "subspace": (subspace, 1),
    "followed eigenpairs": (followed, 1),
    "fisher": (
        lambda s: (
            curvature.trace(
                lambda v: curvature.fisher_product(
                    lambda p, x: jnp.sqrt(s.c) * network(p, x), W, X
                )(v),
                W,
                num_probes=2,
            ).value
        ),
        1,
    ),
    "loss gradient penalty": (
        lambda s: penalties.loss_gradient_penalty(s.of_pair, W, (X, Y)),
        1,
    ),
    "loss gradient penalty by the inputs": (
        lambda s: penalties.loss_gradient_penalty(s.of_pair, W, (X, Y), by="inputs"),
        1,
    ),
    "winsorize": (lambda s: s.updated(transforms.winsorize(20), s.gradients())[0], 1),
    "median of means": (
        lambda s: s.updated(transforms.median_of_means(3), s.gradients())[0],
        1,
    ),
    "winsorized gradient": (
        lambda s: transforms.winsorized_gradient(s.of_example, W, X, 20)["w"],
        1,
    ),
    "metric": (
        lambda s: s.updated(transforms.metric_decay(0.1, "absolute_hessian"))[1],
        1,
    ),
    "distance in the metric": (
        lambda s: s.updated(transforms.metric_decay(0.1, "absolute_distance"))[1],
        1,
    ),
    "explicit regularization": (
        lambda s: s.updated(transforms.egr(jnp.float32(0.1), jnp.float32(0.1) / s.c))[1],
        1,
    ),
    "its value and gradient": (
        lambda s: transforms.egr_value_and_grad(s.of_all, jnp.float32(0.1) / s.c)(W)[0],
        1,
    ),
    "modified loss": (
        lambda s: igr.modified_value_fn(GD, s.of_all, jnp.float32(0.1) / s.c)(W),
        1,
    ),
    "modified loss of a rule": (
        lambda s: igr.modified_value_fn(RULE, s.of_all, jnp.float32(0.1) / s.c)(W),
        1,
    ),
    "drift": (
        lambda s: s.updated(transforms.scale_by_drift_adjusted_rate(max_learning_rate=1e30))[1],
        0,
    ),
    "deviation under noise": (
        lambda s: diagnostics.noise_robustness(s.of_all, W, [0.1], draws=4).deviation,
        1,
    ),
    "error of the sharpness of batches": (
        lambda s: diagnostics.batch_sharpness(s.of_example, W, X, 2).standard_error,
        1,
    ),
    "bound of the gap": (
        lambda s: diagnostics.generalization_gap_bound(
            jnp.float32([0.5, 0.2]), jnp.float32(0.1) / s.c, 4, lipschitz=s.c, smoothness=s.c
        ),
        1,
    ),
    "slopes of a run": (
        lambda s: igr.run(optax.sgd(jnp.float32(0.1) / s.c), s.of_all, W, 3).gradient_norm,
        1,
    ),
    "what is said of a comparison": (compared, 0),
    "run": (
        lambda s: igr.run(optax.sgd(jnp.float32(0.1) / s.c), s.of_all, W, 3).params["v"],
        0,
    ),
    "monitor": (monitored, 0),
}


@pytest.mark.parametrize(
    "case",
    quick(CALLS, "coherence of batches", "limit of the rate", "boundary"),
)
def test_scaled(case):
    call, power = case
    expected = np.asarray(call(Scaled(1.0)), float)
    assert np.all(np.isfinite(expected))
    for scale in (1e-20, 1e20):
        c = float(np.float32(scale))
        found = np.asarray(call(Scaled(scale)), float) / c**power
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * np.max(abs(expected)))
