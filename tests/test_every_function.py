"""Public functions under transformations, of trees of every kind, after NaN, at large means.

One table of calls, each on a network `apply(params, x) -> (2,)` over {"w": (3,)} and a batch.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import igr
from igr import curvature, diagnostics, penalties, transforms
from tests.test_widths_of_zero import CALLS, LESS, X, Y, less, loss_of, updated, value_of

pytestmark = pytest.mark.slow
KEY = jax.random.key(2)


def output_loss(outputs, y):
    return jnp.sum((outputs - y) ** 2)


def hessian(c):
    return curvature.hessian_product(loss_of(c[0]), c[1], c[2])


MORE_CALLS = {
    "hessian_product": lambda c: hessian(c)(c[1])["w"],
    "gauss_newton_product": lambda c: curvature.gauss_newton_product(
        c[0], output_loss, c[1], (c[2], Y)
    )(c[1])["w"],
    "top_eigenpairs": lambda c: curvature.top_eigenpairs(hessian(c), c[1], 2, tol=1e-9).values,
    "subspace": lambda c: (
        curvature.top_eigenpairs(
            hessian(c), c[1], 2, method="subspace", tol=1e-9, max_products=2000
        ).values
    ),
    "spectral_density": lambda c: (
        curvature.spectral_density(hessian(c), c[1], num_products=3, num_probes=2).density
    ),
    "trace of a function": lambda c: (
        curvature.trace(hessian(c), c[1], function=jnp.abs, num_probes=2).value
    ),
    "sgd_stability": lambda c: (
        curvature.sgd_stability(loss_of(c[0]), c[1], c[2], 0.01, 2, tol=1e-9).growth
    ),
    "class_stiffness": lambda c: (
        diagnostics.class_stiffness(loss_of(c[0]), c[1], c[2], Y, 2).between
    ),
    "coherence by signs": lambda c: (
        diagnostics.coherence(loss_of(c[0]), c[1], c[2], method="random_signs").alpha
    ),
    "alignment": lambda c: diagnostics.tangent_kernel_alignment(*c, Y),
    "spectrum": lambda c: diagnostics.tangent_kernel_spectrum(*c).participation_ratio,
    "trace estimate": lambda c: diagnostics.tangent_kernel_trace_estimate(*c).trace,
    "example_kernel_traces": lambda c: diagnostics.example_kernel_traces(*c),
    "function_space_update": lambda c: (
        diagnostics.function_space_update(*c, lambda f: jnp.sum(f**2), 0.1).update
    ),
    "rademacher_bound": lambda c: diagnostics.rademacher_bound(*c, 2.0),
    "regularizer": lambda c: diagnostics.implicit_gradient_regularizer(value_of(c), c[1]),
    "modified_loss_share": lambda c: diagnostics.modified_loss_share(value_of(c), c[1], 0.1).share,
    "preconditioned_sharpness": lambda c: (
        diagnostics.preconditioned_sharpness(
            value_of(c), c[1], jax.tree.map(lambda x: 1.0 + 0 * x, c[1])
        ).value
    ),
    "sign_perturbed": lambda c: diagnostics.sign_perturbed(
        lambda p, e: loss_of(c[0])(p, e[0]), c[1], (c[2], Y), 0.1
    ),
    "gradient_similarity_logdet": lambda c: penalties.gradient_similarity_logdet(*c, ridge=0.1),
    "egr_value_and_grad": lambda c: transforms.egr_value_and_grad(value_of(c), 0.1)(c[1])[1]["w"],
    "drift_adjusted": lambda c: updated(transforms.drift_adjusted(), c),
    "modified_value_fn": lambda c: igr.modified_value_fn(
        igr.modified_equation(igr.methods.gradient_descent(), 1), value_of(c), 0.1
    )(c[1]),
    "field by differences": lambda c: igr.vector_field(
        igr.modified_equation(igr.methods.gradient_descent(), 1),
        value_of(c),
        0.1,
        derivatives="differences",
    )(0.0, c[1], None)["w"],
    "flow": lambda c: igr.flow(
        igr.vector_field(
            igr.modified_equation(igr.methods.gradient_descent(), 1), value_of(c), 0.1
        ),
        c[1],
        0.2,
    ).ys["w"],
}
ALL = CALLS | MORE_CALLS
EVERY = [name for name in ALL if name not in ("path_complexity", "weight_penalty")]
NOT_TRANSFORMED = {
    "lipschitz_bound": "a search over the examples on the host",
    "path_complexity": "its path is made of params here",
    "weight_penalty": "reads no network",
}
SCALED = [{"w": jnp.array([1.0, -2.0, 0.5])}, {"w": jnp.array([-0.3, 1.2, 0.8])}]


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", [n for n in ALL if n not in NOT_TRANSFORMED])
def test_under_jit_and_vmap(name):
    """With parameters and data traced: what one call gives alone."""
    call = ALL[name]
    each = [call((less, p, X)) for p in SCALED]
    close(jax.jit(lambda p, x: call((less, p, x)))(SCALED[0], X), each[0])
    together = jax.tree.map(lambda *w: jnp.stack(w), *SCALED)
    close(jax.jit(jax.vmap(lambda p: call((less, p, X))))(together), jnp.stack(each))


@pytest.mark.parametrize("name", ["subspace", "top_eigenpairs", "class_stiffness", "coherence"])
@pytest.mark.parametrize("how", [jax.disable_jit, lambda: jax.debug_nans(True)], ids=["jit", "nan"])
def test_while_a_fault_is_looked_for(name, how):
    """Without jit, where indices of loops are plain numbers; and no NaN is made on the way."""
    expected = ALL[name]((less, LESS, X))
    with how():
        close(ALL[name]((less, LESS, X)), expected)


DIFFERENTIABLE = (
    "per_example_gradients", "grouped_gradients", "coherence", "stiffness", "tangent_kernel",
    "tangent_kernel_trace", "geometric_complexity", "slope", "winsorized_gradient",
    "gradient_similarity_trace", "frobenius_penalty", "jacobian_penalty", "confidence_penalty",
    "spectral_penalty", "double_backprop", "loss_gradient_penalty", "hessian_product",
    "gauss_newton_product", "coherence by signs", "alignment", "rademacher_bound", "regularizer",
    "gradient_similarity_logdet", "modified_value_fn", "egr", "egr_value_and_grad", "metric",
    "drift_adjusted", "field by differences", "flow", "run", "vector_field", "trace",
    "batch_sharpness", "function_space_update",
)  # fmt: skip


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_its_derivative_by_the_parameters(name):
    weights = None

    def value(w):
        nonlocal weights
        found = jnp.ravel(jnp.asarray(ALL[name]((less, {"w": w}, X))))
        weights = np.cos(np.arange(found.size))
        return jnp.vdot(weights, found)

    at, along = SCALED[1]["w"], jnp.array([0.6, -0.3, 0.7])
    forward = jax.jit(value)
    h = 1e-5
    difference = (forward(at + h * along) - forward(at - h * along)) / (2 * h)
    slope = jax.jit(jax.grad(value))(at) @ along
    np.testing.assert_allclose(slope, difference, rtol=2e-4, atol=1e-6)


# Of such trees `jax.grad`, which makes their updates, takes none.
BESIDE = [n for n in EVERY if n not in ("egr", "metric", "selective", "stopped", "drift_adjusted")]
BESIDE.remove("preconditioned_sharpness")  # its preconditioner is made of params here


def with_beside(params):
    """What frameworks keep beside the parameters: keys, counts, flags, names, functions, None."""
    return params | {"key": KEY, "count": jnp.arange(2), "flag": True, "name": "net", "none": None}


@pytest.mark.parametrize("name", BESIDE)
def test_what_is_beside_the_parameters_changes_nothing(name):
    close(ALL[name]((less, with_beside(LESS), X)), ALL[name]((less, LESS, X)))


class Held:
    """A class without `__eq__`, as many frameworks hold parameters in."""

    def __init__(self, w):
        self.w = w

    def __getitem__(self, name):
        return getattr(self, name)

    def keys(self):
        return ["w"]


jax.tree_util.register_pytree_node(Held, lambda h: ((h.w,), None), lambda _, w: Held(*w))


@pytest.mark.parametrize("name", EVERY)
def test_a_class_that_does_not_know_when_it_is_equal(name):
    close(ALL[name]((less, Held(LESS["w"]), X)), ALL[name]((less, LESS, X)))


def scaled(p, x):
    return p["s"] * less(p, x)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    "scalar", [0.7, np.float64(0.7), np.array(0.7)], ids=["float", "numpy", "0-d"]
)
def test_a_scalar_leaf_is_an_array(name, scalar):
    expected = ALL[name]((scaled, LESS | {"s": jnp.array(0.7)}, X))
    close(ALL[name]((scaled, LESS | {"s": scalar}, X)), expected)


# Derivatives by the inputs and of the outputs: the parameters are read, as the network reads them.
READ_ONLY = (
    "geometric_complexity", "lipschitz_bound", "frobenius_penalty", "jacobian_penalty",
    "confidence_penalty", "spectral_penalty", "double_backprop", "sign_perturbed",
)  # fmt: skip


@pytest.mark.parametrize("name", [n for n in EVERY if n not in READ_ONLY])
def test_a_complex_leaf_is_refused(name):
    with pytest.raises(ValueError, match=r"complex leaves are not supported: .*'z'.*complex128"):
        ALL[name]((less, LESS | {"z": jnp.ones(2, complex)}, X))


def test_runs_over_rates_and_data():
    def end(h, x):
        return igr.run(optax.sgd(h), value_of((less, LESS, x)), LESS, 3).params["w"][-1]

    def by_hand(h, x):
        w = LESS
        for _ in range(3):
            w = jax.tree.map(lambda p, g: p - h * g, w, jax.grad(value_of((less, LESS, x)))(w))
        return w["w"]

    rates = jnp.array([0.01, 0.1, 0.3])
    close(jax.vmap(end, (0, None))(rates, X), jnp.stack([by_hand(h, X) for h in rates]))
    data = jnp.stack([X, -2 * X])
    close(jax.jit(jax.vmap(end, (None, 0)))(0.1, data), jnp.stack([by_hand(0.1, x) for x in data]))
    for argument in (0, 1):
        slope = jax.grad(lambda h, x: end(h, x) @ jnp.arange(3.0), argument)(0.1, X)
        close(slope, jax.grad(lambda h, x: by_hand(h, x) @ jnp.arange(3.0), argument)(0.1, X))


def test_what_starts_from_nan_forgets_it():
    nothing = {"w": jnp.full(3, jnp.nan)}
    value, params = value_of((less, LESS, X)), LESS
    expected = curvature.sharpness(value, params, tol=1e-8).value
    close(curvature.sharpness(value, params, tol=1e-8, initial=nothing).value, expected)
    product = curvature.hessian_product(value, params)
    for method in ("lanczos", "subspace"):
        found = curvature.top_eigenpairs(
            product,
            params,
            1,
            method=method,
            tol=1e-8,
            initial=jax.tree.map(lambda x: x[None], nothing),
        )
        assert found.converged
        close(found.values[0], expected)
    ones = {"w": jnp.ones(3)}
    found = diagnostics.preconditioned_sharpness(value, params, ones, tol=1e-8, initial=nothing)
    close(found.value, curvature.sharpness(value, params, tol=1e-8, which="largest").value)


# Features of a mean far above their spread, in single precision.

MEANS = [300.0, 20_000.0]
RNG = np.random.default_rng(0)


def attention(p, x):
    q, k, v = (x @ p[name] for name in "qkv")
    return (jax.nn.softmax(q @ k.T / 10) @ v).sum(0)


def convolved(p, x):
    found = jax.lax.conv_general_dilated(
        x[None], p["k"], (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC")
    )
    return jnp.tanh((found - jnp.mean(found, axis=1, keepdims=True))[0]).mean(0)


def projected(p, x):
    return jnp.tanh((x - x.mean(0)) @ p["w"]).sum(0) + (x @ p["u"]).mean(0) - (x @ p["u"])[0]


def small(*shape):
    return RNG.normal(size=shape) / 10


NETWORKS = {
    "attention": (attention, {"q": small(12, 4) / 1e4, "k": small(12, 4), "v": small(12, 3)}),
    "convolution": (convolved, {"k": small(3, 12, 3)}),
    "sequence": (projected, {"w": small(12, 3), "u": small(12, 3)}),
}


@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("name", NETWORKS)
def test_features_of_a_large_mean(name, mean):
    """In single precision each is as near to double precision as from gradients formed first."""
    apply, params = NETWORKS[name]
    x = (RNG.normal(size=(5, 6, 12)) + mean).astype(np.float32)
    y = np.asarray(RNG.normal(size=(5, 3)), np.float32)

    def loss(p, e):
        return jnp.sum((apply(p, e[0]) - e[1]) ** 2)

    def cast(tree, dtype):
        return jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float32), dtype), tree)

    def rows(dtype):
        found = jax.vmap(jax.grad(loss), (None, 0))(cast(params, dtype), cast((x, y), dtype))
        return np.concatenate([np.reshape(a, (5, -1)) for a in jax.tree.leaves(found)], 1)

    def of(g):
        g = g.astype(float)
        squares = np.sum(g**2, 1)
        unit = g / np.sqrt(squares)[:, None]
        mean = g.mean(0)
        return np.mean(squares), mean @ mean / np.mean(squares), unit @ unit.T

    exact, formed = of(rows(float)), of(rows(np.float32))
    args = cast(params, np.float32), cast((x, y), np.float32)
    coherence = diagnostics.coherence(loss, *args)
    found = coherence.mean_square, coherence.alpha, diagnostics.stiffness(loss, *args)
    for ours, theirs, right in zip(found, formed, exact, strict=True):
        size = np.max(abs(right))
        allowed = 4 * np.max(abs(theirs - right)) / size + 2e-5
        assert np.max(abs(np.asarray(ours, float) - right)) / size <= allowed
    assert np.all(np.diag(found[2]) > 0.999)

    def jacobian(dtype):
        found = jax.vmap(jax.jacrev(apply), (None, 0))(cast(params, dtype), cast(x, dtype))
        return np.concatenate([np.reshape(a, (5, 3, -1)) for a in jax.tree.leaves(found)], 2)

    def kernel(j):
        j = j.astype(float)
        flat = j.reshape(15, -1)
        return flat @ flat.T, np.sum(j**2)

    exact, formed = kernel(jacobian(float)), kernel(jacobian(np.float32))
    found = (
        diagnostics.tangent_kernel(apply, args[0], args[1][0]),
        diagnostics.tangent_kernel_trace(apply, args[0], args[1][0]),
    )
    for ours, theirs, right in zip(found, formed, exact, strict=True):
        size = np.max(abs(right))
        allowed = 4 * np.max(abs(theirs - right)) / size + 2e-5
        assert np.max(abs(np.asarray(ours, float) - right)) / size <= allowed


def test_centred_alignment_of_a_large_mean():
    """Of f = w . x the features are the inputs: centred, they are of the size of their spread."""
    x = RNG.normal(size=(6, 4)).astype(np.float32) + np.float32(5000)
    y = RNG.normal(size=6).astype(np.float32)
    wide = x.astype(float) - x.astype(float).mean(0)
    kernel, about = wide @ wide.T, y.astype(float) - y.astype(float).mean()
    exact = about @ kernel @ about / np.linalg.norm(kernel) / (about @ about)
    for apply, params in (
        (lambda p, x: p @ x, jnp.ones(4, jnp.float32)),
        (lambda p, x: x @ p, jnp.ones((4, 1), jnp.float32)),
    ):
        found = diagnostics.tangent_kernel_alignment(apply, params, x, y, centered=True)
        np.testing.assert_allclose(found, exact, rtol=1e-3)
