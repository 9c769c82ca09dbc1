"""Every penalty against its definition, and its gradient against differences."""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igr import penalties
from tests.quick import quick

KEY = jax.random.key(5)

# what runs once is compiled in half the time without the backend's optimizations
quickly_compiled = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def apply_fn(p, x):
    return jnp.tanh(x @ p["in"] + p["bias"]) @ p["out"]


def squared_error(p, example):
    x, y = example
    return jnp.sum((apply_fn(p, x) - jnp.sin(y)) ** 2) / 2


class Case(NamedTuple):
    """A network of 3 inputs and 4 classes on 5 examples, and its derivatives by numpy alone."""

    params: dict
    x: np.ndarray
    y: np.ndarray
    jacobians: np.ndarray  # of the logits by the inputs, (n, q, d)
    probabilities: np.ndarray
    features: np.ndarray  # gradients of all logits by all parameters, (n q, parameters)


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    p = {"in": rng.normal(size=(3, 4)), "bias": rng.normal(size=4), "out": rng.normal(size=(4, 4))}
    x, y = rng.normal(size=(5, 3)), np.array([0, 3, 1, 1, 2])
    hidden = np.tanh(x @ p["in"] + p["bias"])
    logits = hidden @ p["out"]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    slopes = 1 - hidden**2
    jacobians = np.einsum("dh,nh,hq->nqd", p["in"], slopes, p["out"])
    by_bias = np.einsum("nh,hq->nqh", slopes, p["out"])
    by_in = np.einsum("nd,nqh->nqdh", x, by_bias)
    by_out = np.einsum("nh,qo->nqho", hidden, np.eye(4))
    features = np.concatenate(
        [by_bias, by_in.reshape(5, 4, -1), by_out.reshape(5, 4, -1)], axis=2
    ).reshape(20, -1)
    return Case(jax.tree.map(jnp.asarray, p), x, y, jacobians, probabilities, features)


def entropies(case):
    return -np.sum(case.probabilities * np.log(case.probabilities), axis=1)


def softmax_jacobians(case):
    p = case.probabilities
    return np.einsum("no,op->nop", p, np.eye(4)) - np.einsum("no,np->nop", p, p)


def errors(case):
    """dL/df of the cross-entropy."""
    return case.probabilities - np.eye(4)[case.y]


def square(a):
    return np.sum(np.square(a))


def drawn(case, dtype=float, **options):
    """J' r for the draws of the key, normal or on the sphere, one for all or for each."""
    shape = (1 if options.get("draw", "batch") == "batch" else 5, 4)
    r = np.asarray(jax.random.normal(KEY, shape, dtype))
    if options.get("spherical"):
        r = r / np.linalg.norm(r, axis=1, keepdims=True)
    return square(np.einsum("nqd,nq->nd", case.jacobians, np.broadcast_to(r, (5, 4)))) / 5


def drawn_trace(case):
    signs = np.asarray(jax.random.rademacher(KEY, (2, 20), float))
    return np.mean(np.sum((signs @ case.features) ** 2, axis=1))


def by_inputs(case):
    return np.einsum("nq,nqd->nd", errors(case), case.jacobians)


def by_parameters(case):
    return errors(case).reshape(-1) @ case.features / 5


def squared_error_by_inputs(case):
    hidden = np.tanh(case.x @ case.params["in"] + case.params["bias"])
    residuals = hidden @ case.params["out"] - np.sin(case.y)[:, None]
    return np.einsum("nq,nqd->nd", residuals, case.jacobians)


def of_network(name, **options):
    return lambda p, x, y: getattr(penalties, name)(apply_fn, p, x, **options)


def of_loss(name, loss=apply_fn, **options):
    return lambda p, x, y: getattr(penalties, name)(loss, p, x, y, **options)


# name: the penalty, and what it is by its definition
PENALTIES = {
    "double backprop": (of_loss("double_backprop"), lambda c: square(by_inputs(c)) / 5),
    "double backprop of a loss": (
        of_loss("double_backprop", squared_error),
        lambda c: square(squared_error_by_inputs(c)) / 5,
    ),
    "jacobian": (
        of_network("jacobian_penalty"),
        lambda c: square(softmax_jacobians(c) @ c.jacobians) / 5,
    ),
    "frobenius": (of_network("frobenius_penalty"), lambda c: square(c.jacobians) / 5),
    "spectral": (of_network("spectral_penalty", key=KEY), drawn),
    "spectral, spherical": (
        of_network("spectral_penalty", key=KEY, spherical=True),
        lambda c: drawn(c, spherical=True),
    ),
    "spectral, an example": (
        of_network("spectral_penalty", key=KEY, draw="example"),
        lambda c: drawn(c, draw="example"),
    ),
    "confidence": (of_network("confidence_penalty"), lambda c: -np.mean(entropies(c))),
    "loss gradient": (
        of_loss("loss_gradient_penalty"),
        lambda c: np.sqrt(square(by_parameters(c))),
    ),
    "loss gradient, squared": (
        of_loss("loss_gradient_penalty", squared=True),
        lambda c: square(by_parameters(c)),
    ),
    "loss gradient by inputs": (
        of_loss("loss_gradient_penalty", by="inputs"),
        lambda c: np.mean(np.linalg.norm(by_inputs(c), axis=1)),
    ),
    "loss gradient by inputs, squared": (
        of_loss("loss_gradient_penalty", by="inputs", squared=True),
        lambda c: square(by_inputs(c)) / 5,
    ),
    "trace": (of_network("gradient_similarity_trace"), lambda c: square(c.features)),
    "trace by random signs": (
        of_network("gradient_similarity_trace", method="random_signs", probes=2, key=KEY),
        drawn_trace,
    ),
    "logdet": (
        of_network("gradient_similarity_logdet", ridge=0.5),
        lambda c: np.linalg.slogdet(c.features @ c.features.T + 0.5 * np.eye(20))[1],
    ),
    "weights": (
        lambda p, x, y: penalties.weight_penalty(p),
        lambda c: (square(c.params["in"]) + square(c.params["out"])) / 2,
    ),
}


STEP = 1e-5
LONGER = {
    "double backprop of a loss", "spectral, spherical", "spectral, an example",
    "loss gradient, squared", "loss gradient by inputs, squared",
}  # fmt: skip


@pytest.fixture(scope="module")
def along(case):
    """Values and slopes of a penalty at 0, STEP, -STEP and 1 along a line: half of all a jit."""
    found = {}

    def of(name):
        if name not in found:
            names = LONGER if name in LONGER else PENALTIES.keys() - LONGER
            found.update(all_along(case, {n: PENALTIES[n] for n in PENALTIES if n in names}))
        return found[name]

    return of


def all_along(case, of_these):
    rng = np.random.default_rng(1)
    direction = jax.tree.map(lambda w: jnp.asarray(rng.normal(size=w.shape)), case.params)

    @quickly_compiled
    @jax.vmap
    def measured(t):
        at = lambda t: jax.tree.map(lambda w, d: w + t * d, case.params, direction)
        return {
            name: (
                fn(at(t), case.x, case.y),
                sum(
                    jnp.vdot(g, d)
                    for g, d in zip(
                        jax.tree.leaves(jax.grad(fn)(at(t), case.x, case.y)),
                        jax.tree.leaves(direction),
                        strict=True,
                    )
                ),
            )
            for name, (fn, _) in of_these.items()
        }

    return measured(jnp.array([0.0, STEP, -STEP, 1.0]))


SHOWN = quick(list(PENALTIES), *(PENALTIES.keys() - LONGER))


@pytest.mark.parametrize("name", SHOWN)
def test_against_the_definition(name, along, case):
    values, _ = along(name)
    assert values.shape == (4,)
    assert values.dtype == float
    np.testing.assert_allclose(values[0], PENALTIES[name][1](case), rtol=1e-10)
    assert not np.isclose(values[3], values[0], rtol=1e-3)  # it depends on params, under vmap too


@pytest.mark.parametrize("name", SHOWN)
def test_gradients_against_differences(name, along):
    values, slopes = along(name)
    np.testing.assert_allclose(slopes[0], (values[1] - values[2]) / (2 * STEP), rtol=2e-6)


def test_by_hand():
    """f = (0, a x) at x = 0, label 0: p = (1/2, 1/2), dp/dx = (-a, a)/4, dL/dx = a/2."""
    two = lambda a, x: jnp.array([0.0, a]) * x
    a, x, y = 6.0, np.zeros(3), np.zeros(3, int)
    found = quickly_compiled(
        lambda a, x: (
            penalties.jacobian_penalty(two, a, x),
            penalties.frobenius_penalty(two, a, x),
            penalties.double_backprop(two, a, x, y),
            penalties.loss_gradient_penalty(two, a, x, y, by="inputs"),
            penalties.confidence_penalty(two, a, x),
            # at x + 2 the one gradient of the one parameter is 2, of the second output alone
            penalties.gradient_similarity_trace(two, a, x + 2),
        )
    )(jnp.array(a), x)
    np.testing.assert_allclose(found, [36 / 8, 36, 9, 3, -np.log(2), 12], rtol=1e-14)


def test_of_a_linear_layer_frobenius_is_weight_decay():
    """Section 2.2 of the paper."""
    w = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)))
    found = penalties.frobenius_penalty(lambda w, x: w @ x, w, np.ones((2, 3)))
    np.testing.assert_allclose(found, 2 * penalties.weight_penalty(w))
    np.testing.assert_allclose(found, np.linalg.norm(w) ** 2)


@pytest.mark.parametrize("draw", ["batch", "example"])
@pytest.mark.parametrize("spherical", [False, True])
def test_the_spectral_penalty_is_unbiased(case, spherical, draw):
    keys = jax.random.split(jax.random.key(0), 4000)
    each = jax.jit(
        jax.vmap(
            lambda key: penalties.spectral_penalty(
                apply_fn, case.params, case.x, key, spherical=spherical, draw=draw
            )
        )
    )(keys)
    expected = square(case.jacobians) / 5 / (4 if spherical else 1)
    assert abs(np.mean(each) - expected) < 3 * np.std(each) / np.sqrt(len(each))
    assert np.std(each) > 0
    if spherical:  # a lower bound of the square of the spectral norm
        largest = np.linalg.norm(case.jacobians, 2, axis=(1, 2))
        assert np.all(each <= np.mean(largest**2))


def test_the_drawn_trace_and_its_gradient_are_unbiased(case):
    def drawn(w, key):
        return penalties.gradient_similarity_trace(
            apply_fn, {**case.params, "in": w}, case.x, method="random_signs", key=key
        )

    keys = jax.random.split(jax.random.key(1), 2000)
    values, slopes = quickly_compiled(jax.vmap(jax.value_and_grad(drawn), (None, 0)))(
        case.params["in"], keys
    )
    exact, slope = quickly_compiled(
        jax.value_and_grad(
            lambda w: penalties.gradient_similarity_trace(
                apply_fn, {**case.params, "in": w}, case.x
            )
        )
    )(case.params["in"])
    np.testing.assert_allclose(exact, square(case.features))
    assert abs(np.mean(values) - exact) < 3 * np.std(values) / np.sqrt(2000)
    off_diagonal = case.features @ case.features.T * (1 - np.eye(20))
    np.testing.assert_allclose(np.var(values), 2 * square(off_diagonal), rtol=0.15)
    # twelve entries at once, so four standard errors
    errors = np.std(slopes, axis=0) / np.sqrt(2000)
    assert np.all(np.abs(np.mean(slopes, axis=0) - slope) < 4 * errors)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, pytest.param(jnp.float32, marks=pytest.mark.slow)])
def test_low_precision_gives_single_precision(case, dtype):
    params = jax.tree.map(lambda w: w.astype(dtype), case.params)
    x = jnp.asarray(case.x, dtype)
    names = ["double backprop", "jacobian", "spectral", "confidence", "loss gradient", "trace"]
    found = quickly_compiled(lambda p, x: {n: PENALTIES[n][0](p, x, case.y) for n in names})(
        params, x
    )
    rtol = 0.2 if dtype == jnp.bfloat16 else 1e-4
    for name, value in found.items():
        assert value.dtype == jnp.float32
        options = {"dtype": jnp.float32} if name == "spectral" else {}  # another draw
        expected = PENALTIES[name][1](case, **options)
        np.testing.assert_allclose(value, expected, rtol=rtol, err_msg=name)


@pytest.mark.parametrize("name", ["double backprop", "spectral", "loss gradient", "trace"])
def test_gradients_keep_the_dtypes_of_params(case, name):
    """What is seen without running anything."""
    params = {**case.params, "in": case.params["in"].astype(jnp.bfloat16)}
    fn = lambda p: PENALTIES[name][0](p, case.x, case.y)
    gradients = jax.eval_shape(jax.grad(fn), params)
    assert {k: g.dtype for k, g in gradients.items()} == {k: w.dtype for k, w in params.items()}


def test_a_gradient_that_is_zero_has_a_norm_with_a_derivative():
    loss = lambda w, example: jnp.sum((w * example[0]) ** 2)  # flat at w = 0
    for by in ("parameters", "inputs"):
        fn = lambda w, by=by: penalties.loss_gradient_penalty(
            loss, w, jnp.ones(3), jnp.ones(3), by=by
        )
        assert quickly_compiled(jax.value_and_grad(fn))(jnp.zeros(())) == (0, 0)


def test_a_ruled_out_class_has_no_entropy():
    masked = lambda w, x: jnp.stack([w * x, x, -jnp.inf])
    fn = lambda w: penalties.confidence_penalty(masked, w, jnp.ones(2))
    value, slope = jax.value_and_grad(fn)(1.0)
    np.testing.assert_allclose(value, -np.log(2))
    np.testing.assert_allclose(slope, 0, atol=1e-15)


@pytest.mark.slow
def test_a_singular_kernel_is_minus_infinity_until_a_ridge_bounds_it():
    scale = lambda w, x: w**2 * x
    w, x = jnp.array(2.0), jnp.ones(2)  # two equal examples, K = 16
    assert penalties.gradient_similarity_logdet(scale, w, x) == -np.inf
    bounded = penalties.gradient_similarity_logdet(scale, w, x, ridge=1.0)
    np.testing.assert_allclose(bounded, np.log(33))


def test_weights_by_a_mask():
    params = {"w": jnp.full((2, 2), 2.0), "b": jnp.ones(3), "steps": jnp.arange(3)}
    assert penalties.weight_penalty(params) == 8
    assert penalties.weight_penalty(params, {"w": False, "b": True, "steps": True}) == 1.5
    assert penalties.weight_penalty(params, lambda p: {k: k != "w" for k in p}) == 1.5
    nested = {"a": params, "c": params}
    assert penalties.weight_penalty(nested, {"a": True, "c": False}) == 9.5


def test_what_is_called_bias_is_no_weight():
    params = {"weight": jnp.full((2, 1, 1, 1), 2.0), "bias": jnp.ones((2, 1, 1))}
    assert penalties.weight_penalty(params) == 4
    convolution = eqx.nn.Conv2d(1, 4, 3, key=jax.random.key(0))
    expected = float(np.sum(np.asarray(convolution.weight) ** 2)) / 2
    np.testing.assert_allclose(penalties.weight_penalty(convolution), expected, rtol=1e-6)


def test_inputs_and_params_may_be_pytrees():
    fn = lambda p, x: jnp.stack([p["w"] * x["a"] @ x["a"], p["count"] * x["b"]])
    params = {"w": jnp.array(2.0), "count": jnp.array(3)}
    x = {"a": np.ones((2, 3)), "b": np.ones(2)}
    y = np.array([0, 1])
    frobenius, trace, gradient = quickly_compiled(
        lambda p, x: (
            penalties.frobenius_penalty(fn, p, x),
            penalties.gradient_similarity_trace(fn, p, x),
            jax.grad(penalties.double_backprop, 1, allow_int=True)(fn, p, x, y),
        )
    )(params, x)
    assert frobenius == 4 * 4 * 3 + 9
    assert trace == 2 * 9
    assert np.isfinite(gradient["w"])
