"""One notion of a trained leaf, and of a batch, in every part of the library."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from flax import nnx

import igr
from igr import curvature, diagnostics, penalties, per_example, transforms
from igr.flows.edge.central import _moment, _RMSProp
from igr.flows.steps.rules import check_direction
from igr.pytrees import combine, num_examples, partition, require_trained, same_shapes
from tests.quick import quick

PARAMS = {
    "array": jnp.ones(2),
    "numpy": np.ones(2, np.float32),
    "scalar": np.float64(2.0),
    "bfloat16": ml_dtypes.bfloat16(2.0),
    "python": 3.0,
    "integer": jnp.arange(2),
    "count": 4,
    "flag": True,
    "key": jax.random.key(0),
    "none": None,
    "static": "relu",
    "function": jnp.tanh,
}
EQUATION = igr.modified_equation(igr.methods.gradient_descent(), 1)
TRAINED = {"array", "numpy", "scalar", "bfloat16", "python"}


def test_partition_and_combine():
    trained, rest = partition(PARAMS)
    assert {k for k, v in trained.items() if v is not None} == TRAINED
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(trained))
    assert trained["numpy"].dtype == jnp.float32
    assert trained["bfloat16"].dtype == jnp.bfloat16
    assert {k for k, v in rest.items() if v is not None} == set(PARAMS) - TRAINED - {"none"}
    whole = combine(trained, rest)
    assert whole["function"] is jnp.tanh
    assert whole["count"] == 4
    assert whole["python"] == 3


def test_what_is_trained_eagerly_is_trained_under_jit():
    arrays = {k: v for k, v in PARAMS.items() if k not in ("static", "function")}
    inside = []
    jax.jit(lambda p: inside.append(partition(p)[0]) or 0)(arrays)
    assert {k for k, v in inside[0].items() if v is not None} == TRAINED
    assert {k: v.dtype for k, v in inside[0].items() if v is not None} == {
        k: v.dtype for k, v in partition(arrays)[0].items() if v is not None
    }


def test_a_tree_without_trained_leaves():
    for params in ({}, None, {"n": 3, "w": jnp.arange(2)}, {"empty": jnp.zeros((0, 3))}):
        with pytest.raises(ValueError, match="params must hold at least one floating array"):
            require_trained(params)


def example_loss(params, x):
    return jnp.sum(jnp.sin(params["w"] @ x)) + jnp.sum(jnp.real(params["z"]))


def apply_fn(params, x):
    return params["w"] @ x + jnp.sum(jnp.real(params["z"]))


COMPLEX = {"w": jnp.ones((2, 3)), "z": jnp.ones(2, jnp.complex64)}
X = jnp.arange(12.0).reshape(4, 3)


def value_fn(params):
    return jnp.mean(jax.vmap(example_loss, (None, 0))(params, X))


def updated(rule, updates=COMPLEX):
    return rule.update(updates, rule.init(COMPLEX), COMPLEX, value_fn=value_fn)


@pytest.mark.parametrize(
    "call",
    [
        lambda: per_example.per_example_gradients(example_loss, COMPLEX, X),
        lambda: per_example.grouped_gradients(example_loss, COMPLEX, X, 2),
        lambda: diagnostics.coherence(example_loss, COMPLEX, X),
        lambda: diagnostics.coherence(example_loss, COMPLEX, X, method="random_signs"),
        lambda: diagnostics.coherence_from_batches(COMPLEX, 2),
        lambda: diagnostics.stiffness(example_loss, COMPLEX, X),
        lambda: diagnostics.loss_surface_slope(value_fn, COMPLEX),
        lambda: diagnostics.implicit_gradient_regularizer(value_fn, COMPLEX),
        lambda: diagnostics.tangent_kernel(apply_fn, COMPLEX, X),
        lambda: diagnostics.tangent_kernel_trace(apply_fn, COMPLEX, X),
        lambda: diagnostics.tangent_kernel_trace(apply_fn, COMPLEX, X, method="random_signs"),
        lambda: diagnostics.noise_robustness(value_fn, COMPLEX, [0.1]),
        lambda: penalties.gradient_similarity_trace(apply_fn, COMPLEX, X),
        lambda: penalties.loss_gradient_penalty(lambda p, e: example_loss(p, e[0]), COMPLEX, X, X),
        lambda: penalties.weight_penalty(COMPLEX),
        lambda: curvature.sharpness(value_fn, COMPLEX),
        lambda: curvature.hessian_product(value_fn, COMPLEX),
        lambda: curvature.fisher_product(example_loss, COMPLEX, X),
        lambda: curvature.trace(lambda v: v, COMPLEX),
        lambda: curvature.top_eigenpairs(lambda v: v, COMPLEX, 1),
        lambda: igr.vector_field(
            igr.modified_equation(igr.methods.gradient_descent(), 1), value_fn, 0.1
        )(0.0, COMPLEX, None),
        lambda: igr.run(optax.sgd(0.1), value_fn, COMPLEX, 2),
        lambda: updated(transforms.egr(0.1, 0.1)),
        lambda: updated(transforms.metric_decay(0.1)),
        lambda: updated(transforms.decay_until(0.1, 2)),
        lambda: updated(transforms.winsorize(0)),
        lambda: updated(transforms.median_of_means(1)),
        lambda: transforms.winsorized_gradient(example_loss, COMPLEX, X, 10),
        lambda: transforms.egr_value_and_grad(value_fn, 0.1)(COMPLEX),
    ],
)
def test_a_complex_leaf_is_refused_by_name(call):
    with pytest.raises(ValueError, match=r"complex leaves .* \w+\['z'\] is complex"):
        call()


@pytest.mark.parametrize(
    "name", quick(["slope", "gradients", "coherence", "sharpness", "trace"], "slope", "gradients")
)
def test_scalars_of_python_and_numpy_count_like_arrays(name):
    def loss(p, x):
        return jnp.sin(p["a"] * x) * p["b"] + p["b"] ** 2 * x**2

    x = jnp.array([0.5, -1.0, 2.0])
    arrays = {"a": jnp.array(1.5), "b": jnp.array(0.7)}
    value = lambda p: jnp.mean(jax.vmap(loss, (None, 0))(p, x))
    measures = {
        "slope": lambda p: diagnostics.loss_surface_slope(value, p),
        "coherence": lambda p: diagnostics.coherence(loss, p, x).alpha,
        "sharpness": lambda p: curvature.sharpness(value, p).value,
        "trace": lambda p: diagnostics.tangent_kernel_trace(loss, p, x),
        "gradients": lambda p: jnp.sum(per_example.per_example_gradients(loss, p, x)["b"]),
    }
    expected = measures[name](arrays)
    for scalars in ({"a": np.float64(1.5), "b": 0.7}, {"a": 1.5, "b": np.float64(0.7)}):
        np.testing.assert_allclose(measures[name](scalars), expected, rtol=1e-12)


def test_a_python_float_is_trained_by_the_transformations():
    loss = lambda p: (p["a"] * p["b"] - 1) ** 2 / 2
    arrays, scalars = {"a": jnp.array(2.0), "b": jnp.array(1.5)}, {"a": 2.0, "b": 1.5}
    for rule in (transforms.egr(0.1, 0.2), transforms.l2_stopped_sgd(0.1, 0.2, 3)):
        found = []
        for params in (arrays, scalars):
            gradient = jax.grad(loss)(params)
            updates, _ = rule.update(gradient, rule.init(params), params, value_fn=loss)
            found.append(optax.apply_updates(params, updates))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), *found)


def test_batches():
    assert num_examples({"x": np.ones((3, 2)), "y": jnp.arange(3)}) == 3
    for batch, message in (
        ({}, "batch must hold at least one array; it is empty"),
        ((jnp.ones(3), jnp.ones((4, 2))), r"got 3 in batch\[0\], 4 in batch\[1\]"),
        ({"x": 3.0}, r"leading example axis; batch\['x'\] is 3.0"),
        (jnp.ones((0, 2)), "batch must hold at least one example; it holds 0"),
    ):
        with pytest.raises(ValueError, match=message):
            num_examples(batch)


@jax.tree_util.register_pytree_node_class
class Params:
    """Registered with what JAX asks for and no more: two of these are never equal."""

    def __init__(self, w, b):
        self.w, self.b = w, b

    def tree_flatten(self):
        return (self.w, self.b), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


def test_classes_that_do_not_know_when_they_are_equal():
    params = Params(jnp.array([1.0, -2.0]), jnp.array(0.5))
    loss = lambda p: jnp.sum(p.w**2) * 2 + 5 * p.b**2  # H = diag(4, 4, 10)
    assert same_shapes(params, Params(jnp.zeros(2), jnp.zeros(())))
    product = curvature.hessian_product(loss, params)
    np.testing.assert_allclose(product(Params(jnp.ones(2), jnp.ones(()))).w, 4)
    found = curvature.sharpness(loss, params, initial=Params(jnp.ones(2), jnp.ones(())))
    np.testing.assert_allclose(found.value, 10)
    with pytest.raises(ValueError, match=r"v must have .*of params; got .*\(3,\).*expected .*\(2,"):
        product(Params(jnp.ones(3), jnp.ones(())))


@pytest.mark.slow
def test_such_classes_in_a_density_a_monitor_and_a_comparison():
    params = Params(jnp.array([1.0, -2.0]), jnp.array(0.5))
    loss = lambda p: jnp.sum(p.w**2) * 2 + 5 * p.b**2  # H = diag(4, 4, 10)
    product = curvature.hessian_product(loss, params)
    found = curvature.sharpness(loss, params)
    again = curvature.sharpness(loss, params, initial=found.vector)
    np.testing.assert_allclose([found.value, again.value], 10)
    pairs = curvature.top_eigenpairs(product, params, 2)
    np.testing.assert_allclose(
        curvature.top_eigenpairs(product, params, 2, initial=pairs.vectors).values, [10, 4]
    )
    np.testing.assert_allclose(curvature.trace(product, params).value, 18)
    density = curvature.spectral_density(product, params, num_probes=2, num_products=2)
    np.testing.assert_allclose(density.nodes, [[4, 10]] * 2)
    example_loss = lambda p, x: x * loss(p)
    monitor = igr.Monitor(["sharpness"], example_loss_fn=example_loss)
    for scale in (1.0, 2.0):  # the second search starts from the vector of the first
        row = monitor(params, jnp.full(3, scale))
        np.testing.assert_allclose(row["sharpness"], 10 * scale, rtol=1e-2)
    found = igr.compare(loss, params, 0.01, 4, record_every=4)
    w, b = (np.array(x) for x in (params.w, params.b))
    np.testing.assert_allclose(found.discrete.params.w[-1], w * 0.96**4, rtol=1e-6)
    np.testing.assert_allclose(found.discrete.params.b[-1], b * 0.9**4, rtol=1e-6)


def test_a_filtered_model_says_what_to_combine():
    model = {"w": jnp.ones(2), "activation": jnp.tanh}
    apply = lambda m, x: m["activation"](m["w"] * x)
    params = {"w": jnp.ones(2), "activation": None}
    value = lambda m: jnp.sum(apply(m, X[:, :2]))
    assert np.isfinite(transforms.egr_value_and_grad(value, 0.1)(model)[0])
    egr, decay = transforms.egr(0.1, 0.1), transforms.metric_decay(0.1)
    example = lambda m, x: jnp.sum(apply(m, x[:2]))
    for call in (
        lambda: egr.update(params, egr.init(params), params, value_fn=value),
        lambda: decay.update(params, decay.init(params), params, value_fn=value),
        lambda: transforms.egr_value_and_grad(value, 0.1)(params),
        lambda: transforms.metric_value_and_grad(value, 0.1)(params),
        lambda: curvature.sharpness(value, params),
        lambda: diagnostics.loss_surface_slope(value, params),
        lambda: diagnostics.coherence(example, params, X),
        lambda: per_example.per_example_gradients(example, params, X),
        lambda: igr.run(optax.sgd(0.1), value, params, 2),
        lambda: igr.vector_field(EQUATION, value, 0.1)(0.0, params, None),
        lambda: igr.vector_field(EQUATION, value, 0.1, derivatives="differences")(0, params, None),
        lambda: igr.modified_value_fn(EQUATION, value, 0.1)(params),
        lambda: igr.flow(igr.vector_field(EQUATION, value, 0.1), params, 0.1),
        lambda: igr.interpolating_field(jax.grad(value), 1, 0.1)(0.0, params, None),
        lambda: igr.flows.run_epochs(optax.sgd(0.1), example, params, X, jnp.arange(4)[None]),
        lambda: igr.Monitor(["slope"], example_loss_fn=example)(params, X),
        lambda: diagnostics.accuracy(apply, params, X[:, :2], jnp.zeros(len(X), int)),
        lambda: diagnostics.sign_perturbed(lambda p, e: example(p, e[0]), params, (X, X), 0.1),
    ):
        with pytest.raises(TypeError, match=r"None at params\['activation'\].*equinox.combine"):
            call()
    with pytest.raises(TypeError, match="not callable") as refused:  # not for a None in params
        curvature.sharpness(lambda p: {}.get("f")(p), jnp.ones(2))
    assert "combine" not in str(refused.value)


def test_statistics_of_a_module_of_nnx_are_no_parameters():
    class Network(nnx.Module):
        def __init__(self):
            self.norm = nnx.BatchNorm(3, use_running_average=True, rngs=nnx.Rngs(0))

        def __call__(self, x):
            return self.norm(x)

    model = Network()
    value = lambda m: jnp.sum((m(X) - 1.0) ** 2)
    rule = transforms.egr(0.1, 0.1)
    for call in (
        lambda: transforms.egr_value_and_grad(value, 0.1)(model),
        lambda: transforms.metric_value_and_grad(value, 0.1)(model),
        lambda: rule.update(model, rule.init(model), model, value_fn=value),
        lambda: curvature.sharpness(value, model),
        lambda: diagnostics.loss_surface_slope(value, model),
        lambda: diagnostics.coherence(lambda m, x: jnp.sum(m(x[None])), model, X),
        lambda: igr.run(optax.sgd(0.1), value, model, 2),
    ):
        with pytest.raises(ValueError, match=r"mean.*BatchStat, which is no.*nnx.split"):
            call()
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    loss = lambda p: value(nnx.merge(graph, p, rest, copy=True))
    _, gradient = transforms.egr_value_and_grad(loss, 0.0)(params)
    expected = jax.grad(lambda b: jnp.sum((X / np.sqrt(1 + 1e-5) + b - 1) ** 2))(jnp.zeros(3))
    (found,) = jax.tree.leaves(nnx.filter_state(gradient, lambda path, _: "bias" in path))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_penalties_load_neither_sympy_nor_diffrax():
    code = "import sys, igr.penalties; print([m for m in ('sympy', 'diffrax') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_plain_class_is_like_itself_wherever_something_must_be_like_params():
    class Plain:  # knows nothing of equality
        def __init__(self, w):
            self.w = w

    jax.tree_util.register_pytree_node(Plain, lambda p: ((p.w,), None), lambda _, c: Plain(*c))
    one, two, other = Plain(jnp.ones(2)), Plain(jnp.zeros(2)), Plain(jnp.zeros(3))
    check_direction(one, two, "a rule")
    with pytest.raises(ValueError, match=r"a direction for params, .*\(3,\).*; got .*\(2,\)"):
        check_direction(one, other, "a rule")
    assert isinstance(_moment(one, two, _RMSProp(0.9, 1e-8)), Plain)
    with pytest.raises(ValueError, match=r"nu must be like params, .*\(3,\).*; got .*\(2,\)"):
        _moment(one, other, _RMSProp(0.9, 1e-8))
