"""Leaves of width 0 and sequences of length 0 change no number in any public function."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import igr
from igr import curvature, diagnostics, penalties, per_example, transforms
from tests.quick import quick

X = jax.random.normal(jax.random.key(0), (4, 3))
Y = jnp.array([0, 1, 1, 0])
LESS = {"w": jnp.array([1.0, -2.0, 0.5])}
MORE = LESS | {
    "v": jnp.ones((2, 2)),  # meets sequences of length 0
    "k": jnp.ones((3, 2, 2)),  # a kernel that does, and finds no place
    "z": jnp.zeros((0, 3)),
    "c": jnp.zeros((2, 0, 2)),  # a kernel of no channels
}
EMPTY = {"x": X, "s": jnp.zeros((4, 0, 2)), "n": jnp.zeros((4, 5, 0))}


def conv(s, kernel):
    found = jax.lax.conv_general_dilated(
        s[None], kernel, (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC")
    )
    return jnp.sum(found[0], axis=0)


def less(p, x):
    return jnp.tanh(p["w"] * x)[:2]


def more(p, e):
    nothing = jnp.sum(p["z"] @ e["x"]) + jnp.sum(e["s"] @ p["v"], axis=0)
    return less(p, e["x"]) + nothing + conv(e["n"], p["c"])


def convolved(p, e):
    """A kernel of three over two places of padding: no place is left."""
    padded = jax.lax.conv_general_dilated(
        e["s"][None], p["k"], (1,), [(1, 1)], dimension_numbers=("NWC", "WIO", "NWC")
    )
    return more(p, e) + jnp.sum(padded[0], axis=0)


def loss_of(apply):
    return lambda p, e: jnp.sum(apply(p, e) ** 2)


def value_of(case):
    apply, _, x = case
    return lambda p: jnp.mean(jax.vmap(loss_of(apply), (None, 0))(p, x))


def updated(rule, case, updates=None):
    value = value_of(case)
    updates = jax.grad(value)(case[1]) if updates is None else updates
    return rule.update(updates, rule.init(case[1]), case[1], value_fn=value)[0]["w"]


def each(case):
    return per_example.per_example_gradients(loss_of(case[0]), case[1], case[2])


def penalty(name, **options):
    return lambda c: getattr(penalties, name)(*c, **options)


CALLS = {
    "per_example_gradients": lambda c: each(c)["w"],
    "grouped_gradients": lambda c: per_example.grouped_gradients(loss_of(c[0]), c[1], c[2], 2)["w"],
    "coherence": lambda c: diagnostics.coherence(loss_of(c[0]), c[1], c[2], chunk=3).alpha,
    "coherence_from_batches": lambda c: diagnostics.coherence_from_batches(each(c), 1).alpha,
    "stiffness": lambda c: diagnostics.stiffness(loss_of(c[0]), c[1], c[2]),
    "batch_sharpness": lambda c: diagnostics.batch_sharpness(loss_of(c[0]), c[1], c[2], 2).value,
    "tangent_kernel": lambda c: diagnostics.tangent_kernel(*c),
    "tangent_kernel_trace": lambda c: diagnostics.tangent_kernel_trace(*c),
    "feature_covariance": lambda c: diagnostics.feature_covariance_eigenpairs(*c, 2).values,
    "geometric_complexity": lambda c: diagnostics.geometric_complexity(*c),
    "lipschitz_bound": lambda c: diagnostics.lipschitz_bound(*c).slope,
    "slope": lambda c: diagnostics.loss_surface_slope(value_of(c), c[1]),
    "noise_robustness": lambda c: diagnostics.noise_robustness(value_of(c), c[1], [0.0]).mean,
    "root_diagonal_trace": lambda c: (
        diagnostics.root_diagonal_trace(lambda p: jnp.sum(p["w"] ** 2), c[1], probes=2).value
    ),
    "path_complexity": lambda c: diagnostics.path_complexity(
        c[0], {k: jnp.stack([x, 2 * x if k == "w" else x]) for k, x in c[1].items()}, c[2]
    ),
    "sharpness": lambda c: curvature.sharpness(value_of(c), c[1]).value,
    "batch of sharpness": lambda c: curvature.sharpness(loss_of(c[0]), c[1], c[2]).value,
    "fisher_product": lambda c: curvature.fisher_product(loss_of(c[0]), c[1], c[2])(c[1])["w"],
    "trace": lambda c: (
        curvature.trace(
            curvature.hessian_product(lambda p: jnp.sum(p["w"] ** 2), c[1]), c[1], num_probes=2
        ).value
    ),
    "egr": lambda c: updated(transforms.egr(0.1, 0.1), c),
    "metric": lambda c: updated(transforms.metric_decay(0.1, "absolute_hessian"), c),
    "selective": lambda c: updated(transforms.selective_decay(0.1, 0.5), c),
    "stopped": lambda c: updated(transforms.l2_stopped_selective_sgd(0.1, 0.1, 2, 0.5), c),
    "winsorize": lambda c: updated(transforms.winsorize(20), c, each(c)),
    "median_of_means": lambda c: updated(transforms.median_of_means(2), c, each(c)),
    "winsorized_gradient": lambda c: transforms.winsorized_gradient(loss_of(c[0]), c[1], c[2], 20)[
        "w"
    ],
    "gradient_similarity_trace": penalty("gradient_similarity_trace"),
    "frobenius_penalty": penalty("frobenius_penalty"),
    "jacobian_penalty": penalty("jacobian_penalty"),
    "confidence_penalty": penalty("confidence_penalty"),
    "spectral_penalty": penalty("spectral_penalty", key=jax.random.key(1)),
    "double_backprop": lambda c: penalties.double_backprop(c[0], c[1], (c[2], Y)),
    "loss_gradient_penalty": lambda c: penalties.loss_gradient_penalty(c[0], c[1], (c[2], Y)),
    "weight_penalty": lambda c: penalties.weight_penalty(c[1], lambda p: {k: k == "w" for k in p}),
    "run": lambda c: igr.run(optax.sgd(0.1), value_of(c), c[1], 3).params["w"],
    "vector_field": lambda c: igr.vector_field(
        igr.modified_equation(igr.methods.gradient_descent(), 1), value_of(c), 0.1
    )(0.0, c[1], None)["w"],
}


QUICK = (  # each in one program
    "per_example_gradients", "stiffness", "lipschitz_bound", "winsorized_gradient",
    "double_backprop", "frobenius_penalty",
)  # fmt: skip


@pytest.mark.parametrize("name", quick(list(CALLS), *QUICK))
def test_what_has_no_entry_changes_nothing(name):
    call = CALLS[name]
    both = lambda: (call((less, LESS, X)), call((convolved, MORE, EMPTY)))
    expected, found = jax.jit(both)() if name in QUICK else both()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def test_a_matrix_without_entries_has_the_norm_zero():
    found = diagnostics.spectral_product([jnp.eye(2), jnp.zeros((0, 2))])
    assert found == 0


@pytest.mark.parametrize(
    "name",
    ["tangent_kernel", "geometric_complexity", "lipschitz_bound", "gradient_similarity_trace"],
)
def test_a_network_of_no_outputs_is_refused(name):
    with pytest.raises(ValueError, match="apply_fn must return at least one number"):
        CALLS[name]((lambda p, x: less(p, x)[:0], LESS, X))


def test_a_metric_of_no_parameters():
    empty = {"w": jnp.zeros((0, 3))}
    rule = transforms.metric_decay(0.1, "absolute_hessian")
    value = lambda p: jnp.sum(p["w"] ** 2)
    updates, _ = rule.update(empty, rule.init(empty), empty, value_fn=value)
    assert updates["w"].shape == (0, 3)
