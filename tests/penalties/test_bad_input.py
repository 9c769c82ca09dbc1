"""What penalties refuse, and how they say it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igr import penalties

KEY = jax.random.key(5)

INPUTS = ["jacobian_penalty", "frobenius_penalty", "spectral_penalty"]
NETWORKS = [
    *INPUTS,
    "confidence_penalty",
    "gradient_similarity_trace",
    "gradient_similarity_logdet",
]
LOSSES = ["double_backprop", "loss_gradient_penalty"]


def call(name, fn, params, x, y):
    if name in LOSSES:
        return getattr(penalties, name)(fn, params, x, y)
    keyed = {"key": KEY} if name == "spectral_penalty" else {}
    return getattr(penalties, name)(fn, params, x, **keyed)


@pytest.mark.parametrize("name", [*NETWORKS, *LOSSES])
def test_an_apply_fn_must_return_a_vector(name):
    matrix = lambda w, x: jnp.outer(w, x)
    with pytest.raises(ValueError, match=r"vector \(q,\) or a scalar.*shape \(3, 3\), float64"):
        call(name, matrix, jnp.ones(3), np.ones((2, 3)), np.zeros(2, int))


@pytest.mark.parametrize("name", [*NETWORKS, *LOSSES])
def test_batch_axes_must_agree(name):
    fn = lambda w, x: w * x[0]
    x = (np.ones((2, 3)), np.ones((4, 3)))
    with pytest.raises(ValueError, match=r"agree in their leading example axis; got 2 in .* 4 in "):
        call(name, fn, jnp.ones(3), x, np.zeros(2, int))


@pytest.mark.parametrize("name", LOSSES)
def test_targets_must_be_as_many_as_inputs_and_labels_among_the_classes(name):
    fn = lambda w, x: w * x
    x = np.ones((2, 3))
    with pytest.raises(ValueError, match=r"got 2 in batch\['x'\], 3 in batch\['y'\]"):
        call(name, fn, jnp.ones(3), x, np.zeros(3, int))
    for label in (3, -1):
        y = np.array([0, label])
        with pytest.raises(ValueError, match=rf"labels y must lie in 0 to 2, .*; got {label}"):
            call(name, fn, jnp.ones(3), x, y)
        assert np.isnan(jax.jit(lambda y: call(name, fn, jnp.ones(3), x, y))(y))
        known = jnp.asarray(y)  # closed over by what is compiled
        with pytest.raises(ValueError, match="labels y must lie in 0 to 2"):
            jax.jit(lambda w, known=known: call(name, fn, w, x, known))(jnp.ones(3))
    with pytest.raises(ValueError, match=r"one integer label an example .* got \[\(\(2,\), 'float"):
        call(name, fn, jnp.ones(3), x, np.zeros(2))
    with pytest.raises(ValueError, match=r"logits of two classes or more; it returned 1"):
        call(name, lambda w, x: w @ x, jnp.ones(3), x, np.zeros(2, int))
    with pytest.raises(ZeroDivisionError):  # the error of a loss is its own
        call(name, lambda w, example: 1 / 0, jnp.ones(3), x, np.zeros(2))


@pytest.mark.parametrize("name", [*INPUTS, "double_backprop"])
def test_inputs_must_be_floating(name):
    with pytest.raises(ValueError, match=r"x must be floating to be differentiated by; got int64"):
        call(name, lambda w, x: w * x, jnp.ones(3), np.ones((2, 3), int), np.zeros(2, int))


def test_other_bad_input():
    fn, w, x = lambda w, x: w * x, jnp.ones(3), np.ones((2, 3))
    with pytest.raises(ValueError, match=r"key must be given.*a new one in every step"):
        penalties.spectral_penalty(fn, w, x)
    with pytest.raises(ValueError, match=r"key must be given"):
        penalties.gradient_similarity_trace(fn, w, x, method="random_signs")
    with pytest.raises(ValueError, match=r"'batch' or 'example'; got 'examples'"):
        penalties.spectral_penalty(fn, w, x, KEY, draw="examples")  # pyright: ignore
    with pytest.raises(ValueError, match=r"'exact' or 'random_signs'; got 'probed'"):
        penalties.gradient_similarity_trace(fn, w, x, method="probed")  # pyright: ignore
    with pytest.raises(ValueError, match=r"probes must be at least 1; got 0"):
        penalties.gradient_similarity_trace(fn, w, x, probes=0)
    with pytest.raises(ValueError, match=r"by must be 'parameters' or 'inputs'; got 'params'"):
        penalties.loss_gradient_penalty(fn, w, x, np.zeros(2, int), by="params")  # pyright: ignore
    with pytest.raises(ValueError, match=r"ridge must be finite and not negative; got -1"):
        penalties.gradient_similarity_logdet(fn, w, x, ridge=-1)
    with pytest.raises(ValueError, match=r"logits of two classes or more; it returned 1"):
        penalties.confidence_penalty(lambda w, x: w @ x, w, x)
    with pytest.raises(ValueError, match=r"two axes or more.*shapes \[\(3,\)\]"):
        penalties.weight_penalty(w)
    with pytest.raises(ValueError, match=r"mask must be a pytree of bools .* it holds 1"):
        penalties.weight_penalty({"w": w}, {"w": 1})
    with pytest.raises(ValueError, match=r"at least one floating array"):
        penalties.loss_gradient_penalty(fn, np.arange(3), x, np.zeros(2, int))
    with pytest.raises(ValueError, match=r"at least one floating array"):
        penalties.gradient_similarity_trace(fn, np.arange(3), x, method="random_signs", key=KEY)


@pytest.mark.parametrize("name", ["double_backprop", "loss_gradient_penalty"])
def test_a_batch_is_one_pair_as_elsewhere_or_given_as_x_and_y(name):
    loss = lambda w, example: (w @ example[0] - example[1]) ** 2 / 2
    w, x, y = jnp.ones(2), jnp.array([[3.0, 4.0]]), jnp.array([5.0])
    penalty = getattr(penalties, name)
    expected = {"double_backprop": 8.0, "loss_gradient_penalty": 10.0}[name]  # 2 |w|, 2 |x|
    for found in (
        penalty(loss, w, (x, y)),
        penalty(loss, w, batch=[x, y]),
        penalty(loss, w, x, y),
        penalty(loss, w, x=x, y=y),
        penalty(loss, w, x, y=y),
    ):
        np.testing.assert_allclose(found, expected)
    for arguments in ({"batch": x}, {}, {"x": x}, {"y": y}, {"batch": (x, y, y)}):
        with pytest.raises(TypeError, match="batch"):
            penalty(loss, w, **arguments)
