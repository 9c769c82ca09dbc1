"""What functions of data hold besides it, read from the compiled program: nothing is run.

The network averages its inputs at once, so that nothing it computes is large: whatever is of the
size of the data is a copy of it, in whole or in part. Functions that take some examples at a time
may hold two such parts. With many parameters and little data the same is asked of arrays of the
size of the parameters: few, or as many as the docstring says.
"""

import inspect
import re

import jax
import jax.numpy as jnp
import optax
import pytest

import igr
from igr import curvature, diagnostics, penalties, per_example, transforms
from igr.options import names_of

N, WIDTH, CHUNK = 128, 2**15, 8  # 17 MB; a chunk is 1/16 of it
PARAMS = {
    "w": jax.ShapeDtypeStruct((4, 3), jnp.float32),
    "b": jax.ShapeDtypeStruct((3,), jnp.float32),
    "v": jax.ShapeDtypeStruct((3, 2), jnp.float32),
}
BATCH = (
    jax.ShapeDtypeStruct((N, WIDTH), jnp.float32),
    jax.ShapeDtypeStruct((N,), jnp.int32),
)
SIZE = 4 * N * WIDTH
KEY = jax.random.key(0)


def apply_fn(params, x):
    if x.shape[0] > params["w"].shape[0]:
        x = jnp.mean(x.reshape(4, -1), axis=1)
    return jnp.tanh(x @ params["w"] + params["b"]) @ params["v"]


def example_loss_fn(params, example):
    logits = apply_fn(params, example[0])
    return optax.softmax_cross_entropy_with_integer_labels(logits, example[1])


def output_loss(outputs, y):
    return optax.softmax_cross_entropy_with_integer_labels(outputs, y)


def value_fn_of(batch):
    return lambda p: jnp.mean(jax.vmap(lambda e: example_loss_fn(p, e))(batch))


def hessian(params, batch, **options):
    return curvature.hessian_product(example_loss_fn, params, batch, **options)


def of_examples(fn, *args, **options):
    return lambda p, b: fn(example_loss_fn, p, b, *args, **options)


def of_inputs(fn, *args, **options):
    return lambda p, b: fn(apply_fn, p, b[0], *args, **options)


def of_value(fn, *args, **options):
    return lambda p, b: fn(value_fn_of(b), p, *args, **options)


def stepped(rule, **extra):
    def step(p, b):
        value_fn = value_fn_of(b)
        gradient = jax.grad(value_fn)(p)
        return rule.update(gradient, rule.init(p), p, value_fn=value_fn, **extra)[0]

    return step


def of_each(rule, updates):
    """What a rule makes of updates with a leading axis of examples."""
    return rule.update(updates, rule.init(jax.tree.map(lambda x: x[0], updates)))[0]


def along(p):
    """A path of three points."""
    return jax.tree.map(lambda x: jnp.stack([x, 2 * x, 3 * x]), p)


def monitored(p, b):
    monitor = igr.Monitor(
        ["slope", "coherence", "sharpness", "tangent_kernel_trace"],
        example_loss_fn=example_loss_fn,
        apply_fn=apply_fn,
        learning_rate=0.1,
    )
    return monitor.measure(p, b)


d, c, t = diagnostics, curvature, transforms
# By name: a function of params and batch, and what it may hold besides them, in sizes of the data.
SMALL, CHUNKS = 0.05, 0.15
FEW = 16 / N  # examples that tell the size of the losses, or a chunk by default
GROUP = 1 / 4
KERNELS = 3 * 4 * (2 * N) ** 2 / SIZE  # matrices of the n q outputs
JACOBIANS = 2  # outputs
WHOLE = 1.05  # of the inputs' size is the result, or what the docstring names
TABLE = {
    "hessian_product": (lambda p, b: hessian(p, b)(p), SMALL),
    "hessian_product chunk": (lambda p, b: hessian(p, b, chunk=CHUNK)(p), CHUNKS),
    "hessian_product uneven chunk": (lambda p, b: hessian(p, b, chunk=9)(p), CHUNKS),
    "fisher_product": (lambda p, b: c.fisher_product(example_loss_fn, p, b)(p), SMALL),
    "fisher_product chunk": (
        lambda p, b: c.fisher_product(example_loss_fn, p, b, chunk=CHUNK)(p), CHUNKS,
    ),
    "gauss_newton_product": (
        lambda p, b: c.gauss_newton_product(apply_fn, output_loss, p, b)(p), SMALL,
    ),
    "gauss_newton_product chunk": (
        lambda p, b: c.gauss_newton_product(apply_fn, output_loss, p, b, chunk=CHUNK)(p), CHUNKS,
    ),
    "sharpness": (lambda p, b: c.sharpness(example_loss_fn, p, b).value, SMALL),
    "sharpness chunk": (lambda p, b: c.sharpness(example_loss_fn, p, b, chunk=CHUNK).value, CHUNKS),
    "top_eigenpairs": (lambda p, b: c.top_eigenpairs(hessian(p, b), p, 2).values, SMALL),
    "top_eigenpairs subspace": (
        lambda p, b: c.top_eigenpairs(hessian(p, b), p, 2, method="subspace").values, SMALL,
    ),
    "trace": (lambda p, b: c.trace(hessian(p, b), p), SMALL),
    "spectral_density": (
        lambda p, b: c.spectral_density(hessian(p, b), p, num_products=5, num_probes=2), SMALL,
    ),
    "sgd_stability": (lambda p, b: c.sgd_stability(example_loss_fn, p, b, 0.1, 4), SMALL + FEW),
    "per_example_gradients": (of_examples(per_example.per_example_gradients), SMALL),
    "per_example_gradients chunk": (
        of_examples(per_example.per_example_gradients, chunk=CHUNK), CHUNKS,
    ),
    "grouped_gradients": (of_examples(per_example.grouped_gradients, 4), SMALL + GROUP),
    "winsorized_gradient": (of_examples(t.winsorized_gradient, 10), SMALL),
    "egr": (stepped(t.egr(0.1, 0.3)), SMALL),
    "add_gradient_norm_penalty": (stepped(t.add_gradient_norm_penalty(0.1)), SMALL),
    "metric_decay": (stepped(t.metric_decay(0.1)), SMALL),
    "selective_decay": (stepped(t.selective_decay(0.1, 0.3)), SMALL),
    "drift_adjusted": (stepped(t.drift_adjusted()), SMALL),
    "coherence": (of_examples(d.coherence), SMALL + FEW),
    "coherence chunk": (of_examples(d.coherence, chunk=CHUNK), CHUNKS + FEW),
    "coherence random_signs": (
        of_examples(d.coherence, method="random_signs", probes=3), SMALL + FEW,
    ),
    "stiffness": (of_examples(d.stiffness), SMALL),
    "class_stiffness": (
        lambda p, b: d.class_stiffness(example_loss_fn, p, b, b[1], 2), SMALL,
    ),
    "batch_sharpness": (of_examples(d.batch_sharpness, CHUNK), CHUNKS),
    "preconditioned_sharpness": (
        lambda p, b: d.preconditioned_sharpness(example_loss_fn, p, p, b).value, SMALL,
    ),
    "root_diagonal_trace": (of_examples(d.root_diagonal_trace, probes=3), SMALL),
    "loss_surface_slope": (of_value(d.loss_surface_slope), SMALL),
    "implicit_gradient_regularizer": (of_value(d.implicit_gradient_regularizer), SMALL),
    "modified_loss_share": (of_value(d.modified_loss_share, 0.1), SMALL),
    "tangent_kernel": (of_inputs(d.tangent_kernel), SMALL + KERNELS),
    "tangent_kernel_trace": (of_inputs(d.tangent_kernel_trace), SMALL),
    "tangent_kernel_trace chunk": (of_inputs(d.tangent_kernel_trace, chunk=CHUNK), CHUNKS),
    "tangent_kernel_trace_estimate": (of_inputs(d.tangent_kernel_trace_estimate), SMALL),
    "tangent_kernel_logdet": (of_inputs(d.tangent_kernel_logdet), SMALL + KERNELS),
    "tangent_kernel_spectrum": (of_inputs(d.tangent_kernel_spectrum), SMALL + KERNELS),
    "tangent_kernel_alignment": (
        lambda p, b: d.tangent_kernel_alignment(apply_fn, p, b[0], b[1]), SMALL + KERNELS,
    ),
    "example_kernel_traces": (of_inputs(d.example_kernel_traces, chunk=CHUNK), CHUNKS),
    "feature_covariance_eigenpairs": (
        of_inputs(d.feature_covariance_eigenpairs, 2), SMALL + KERNELS,
    ),
    "function_space_update": (
        of_inputs(d.function_space_update, lambda f: jnp.sum(f**2), 0.1), SMALL + KERNELS,
    ),
    "geometric_complexity": (of_inputs(d.geometric_complexity), SMALL),
    "geometric_complexity chunk": (of_inputs(d.geometric_complexity, chunk=CHUNK), CHUNKS),
    "geometric_complexity random_signs": (
        of_inputs(d.geometric_complexity, method="random_signs", key=KEY), SMALL,
    ),
    "lipschitz_bound": (of_inputs(d.lipschitz_bound, chunk=CHUNK), JACOBIANS * CHUNKS),
    "path_complexity": (lambda p, b: d.path_complexity(apply_fn, along(p), b[0]), SMALL),
    "rademacher_bound": (of_inputs(d.rademacher_bound, 1.0), SMALL),
    "rademacher_bound_of_path": (
        lambda p, b: d.rademacher_bound_of_path(apply_fn, along(p), b[0], jnp.ones(3)), SMALL,
    ),
    "noise_robustness": (
        lambda p, b: d.noise_robustness(
            lambda q: d.accuracy(apply_fn, q, b[0], b[1]), p, [0.1], draws=4, chunk=2, key=KEY
        ), SMALL,
    ),
    "sign_perturbed": (
        lambda p, b: d.sign_perturbed(example_loss_fn, p, b[0], b[1], 0.1), WHOLE,
    ),
    "monitor": (monitored, SMALL + 2 * FEW),
    "confidence_penalty": (of_inputs(penalties.confidence_penalty), SMALL),
    "double_backprop": (of_examples(penalties.double_backprop), SMALL),
    "loss_gradient_penalty": (of_examples(penalties.loss_gradient_penalty), SMALL),
    "loss_gradient_penalty inputs": (
        of_examples(penalties.loss_gradient_penalty, by="inputs"), WHOLE,
    ),
    "frobenius_penalty": (of_inputs(penalties.frobenius_penalty), SMALL),
    "jacobian_penalty": (of_inputs(penalties.jacobian_penalty), SMALL),
    "gradient_similarity_trace": (of_inputs(penalties.gradient_similarity_trace), SMALL),
    "gradient_similarity_trace chunk": (
        of_inputs(penalties.gradient_similarity_trace, chunk=CHUNK), CHUNKS,
    ),
    "gradient_similarity_logdet": (
        of_inputs(penalties.gradient_similarity_logdet), SMALL + KERNELS,
    ),
    "spectral_penalty": (of_inputs(penalties.spectral_penalty, KEY), SMALL),
    "weight_penalty": (lambda p, b: penalties.weight_penalty(p), SMALL),
    "spectral_product": (lambda p, b: d.spectral_product([p["w"], p["v"]]), SMALL),
    "adam_preconditioner": (
        lambda p, b: d.adam_preconditioner(optax.adam(0.1).init(p)), SMALL,
    ),
    "coherence_from_batches": (lambda p, b: d.coherence_from_batches(along(p), 4), SMALL),
    "winsorize": (lambda p, b: of_each(t.winsorize(10), along(p)), SMALL),
    "winsorized_sgd": (lambda p, b: of_each(t.winsorized_sgd(0.1, 10), along(p)), SMALL),
    "median_of_means": (lambda p, b: of_each(t.median_of_means(3), along(p)), SMALL),
    "median_of_means_sgd": (lambda p, b: of_each(t.median_of_means_sgd(0.1, 3), along(p)), SMALL),
    "metric_decay absolute_hessian": (stepped(t.metric_decay(0.1, "absolute_hessian")), SMALL),
    "metric_sgd": (stepped(t.metric_sgd(0.1, 0.1)), SMALL),
    "selective_l2_sgd": (stepped(t.selective_l2_sgd(0.1, 0.02, 0.3)), SMALL),
    "decay_until": (stepped(t.decay_until(0.1, 3)), SMALL),
    "decay_until_then_selective": (stepped(t.decay_until_then_selective(0.1, 3, 0.3)), SMALL),
    "l2_stopped_sgd": (stepped(t.l2_stopped_sgd(0.1, 0.1, 3)), SMALL),
    "l2_stopped_selective_sgd": (
        stepped(t.l2_stopped_selective_sgd(0.1, 0.1, 3, 0.3)), SMALL,
    ),
    "scale_by_drift_adjusted_rate": (stepped(t.scale_by_drift_adjusted_rate()), SMALL),
    "run": (lambda p, b: igr.run(optax.adam(0.1), value_fn_of(b), p, 3).value, SMALL),
    "flow": (
        lambda p, b: igr.flow(
            igr.vector_field(igr.modified_equation(igr.methods.gradient_descent(), 1),
                             value_fn_of(b), 0.1), p, 0.2
        ).ys, SMALL,
    ),
}  # fmt: skip


TABLE |= {  # which leave a part of another length over
    "coherence uneven": (of_examples(d.coherence, chunk=9), CHUNKS + FEW),
    "per_example_gradients uneven": (
        of_examples(per_example.per_example_gradients, chunk=9), CHUNKS,
    ),
    "tangent_kernel_trace uneven": (of_inputs(d.tangent_kernel_trace, chunk=9), CHUNKS),
    "example_kernel_traces uneven": (of_inputs(d.example_kernel_traces, chunk=9), CHUNKS),
    "geometric_complexity uneven": (of_inputs(d.geometric_complexity, chunk=9), CHUNKS),
}  # fmt: skip
OTHERWISE = {
    "linear_pieces": "counts, which jit cannot; its Jacobians are those of lipschitz_bound",
    "adversarial_detection": "of example_kernel_traces and sign_perturbed, and then on the host",
    "accuracy": "in noise_robustness",
    "egr_value_and_grad": "what egr does in a step",
    "metric_value_and_grad": "what metric_decay does in a step",
    "selective_value_and_grad": "what selective_l2_sgd does in a step",
    "stopped_selective_value_and_grad": "what selective_l2_sgd does in a step",
    "match_implicit": "a number from numbers",
    "cancel_implicit": "a number from numbers",
}


SIDE = 500
LARGE = {  # 252,500 parameters
    "w": jax.ShapeDtypeStruct((SIDE, SIDE), jnp.float32),
    "b": jax.ShapeDtypeStruct((SIDE,), jnp.float32),
    "v": jax.ShapeDtypeStruct((SIDE, 4), jnp.float32),
}
FEW_EXAMPLES = (
    jax.ShapeDtypeStruct((16, SIDE), jnp.float32),
    jax.ShapeDtypeStruct((16,), jnp.int32),
)
# How many arrays of the parameters' size are held besides them, and the docstring that says so.
COPIES = 8.2
NAMED = {
    "sharpness": (20, curvature.sharpness, "20 vectors"),
    "sharpness chunk": (20, curvature.sharpness, "20 vectors"),
    "top_eigenpairs": (2 + 20, curvature.top_eigenpairs, "k . 20"),
    "preconditioned_sharpness": (21, diagnostics.preconditioned_sharpness, "20 vectors"),
    "monitor": (20, curvature.sharpness, "20 vectors"),
    "metric_decay absolute_hessian": (
        16 + 8,
        transforms.metric_decay,
        "products and copies of the parameters",
    ),
    "coherence_from_batches": (
        3 + 2 * 3 + 0.1,
        diagnostics.coherence_from_batches,
        "twice as large",
    ),
    "spectral_density": (5 + 7, curvature.spectral_density, "as many vectors"),
    "sgd_stability": (2 * 16 + 54, curvature.sgd_stability, "2 chunk"),
    "per_example_gradients": (2 * 16, per_example.per_example_gradients, "twice"),
    "per_example_gradients chunk": (16 + 1, per_example.per_example_gradients, "n times the"),
    "per_example_gradients uneven": (16 + 1, per_example.per_example_gradients, "n times the"),
    "noise_robustness": (2 * 5 + 1, diagnostics.noise_robustness, "five of them"),
    "flow": (20, igr.flow, "19 copies"),
}


QUICK = (  # where there once was a copy
    "hessian_product uneven chunk", "per_example_gradients uneven", "lipschitz_bound",
)  # fmt: skip
each = pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in TABLE]
)


def held(fn, params=PARAMS, batch=BATCH):
    """Temporaries and results of a compiled program, in bytes."""
    found = jax.jit(fn).lower(params, batch).compile().memory_analysis()
    return found.temp_size_in_bytes + found.output_size_in_bytes


@each
def test_no_second_copy_of_the_data(name):
    fn, share = TABLE[name]
    assert held(fn) <= share * SIZE


@each
def test_arrays_of_the_size_of_the_parameters_are_few_or_named(name):
    most, function, says = NAMED.get(name, (COPIES, None, ""))
    assert held(TABLE[name][0], LARGE, FEW_EXAMPLES) <= most * 4 * (SIDE**2 + 5 * SIDE)
    if function is not None:
        assert re.search(says, " ".join(function.__doc__.split()))


def test_copies_are_seen():
    assert held(lambda p, b: jnp.sort(b[0], axis=1)[:, 0] + p["b"][0]) > 0.9 * SIZE


def test_every_function_of_data_is_in_the_table():
    of_data = {"batch", "x", "example_loss_fn", "apply_fn", "value_fn", "loss_fn"}
    of_params = {"params", "product", "state", "matrices", "batch_gradients"}
    known = {name.split()[0] for name in TABLE} | set(OTHERWISE)
    for module in (curvature, per_example, diagnostics, penalties, transforms):
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.isclass(thing) or not callable(thing):
                continue
            takes = set(names_of(thing))
            if (of_data | of_params) & takes or module is transforms:  # which makes rules of them
                assert name in known
