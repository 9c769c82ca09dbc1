import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igr.diagnostics import Monitor, class_stiffness, stiffness

# With this loss the gradient of an example is the example itself.
linear = lambda w, x: w @ x


compiled = jax.jit(stiffness, static_argnums=0, static_argnames="kind")
by_class = jax.jit(class_stiffness, static_argnums=(0, 4), static_argnames="kind")


def dense_cosines(a, b):
    return np.array([[u @ v / np.sqrt((u @ u) * (v @ v)) for v in b] for u in a])


def test_against_the_definition(network, measured):
    _, signs, across = measured
    a, b = network.gradients, network.other_gradients
    np.testing.assert_array_equal(signs, np.sign(a @ a.T))
    np.testing.assert_allclose(across, dense_cosines(a, b), atol=1e-12)


def test_a_step_on_one_example_changes_the_loss_of_another_as_stiffness_says():
    rng = np.random.default_rng(0)
    x, w = jnp.asarray(rng.normal(size=(5, 3))), jnp.asarray(rng.normal(size=3))
    loss = lambda w, x: (jnp.tanh(w @ x) - 0.5) ** 2
    signs = compiled(loss, w, x, kind="sign")
    losses = jax.jit(jax.vmap(loss, (None, 0)))
    for i in range(5):
        stepped = w - 1e-6 * jax.grad(loss)(w, x[i])
        np.testing.assert_array_equal(np.sign(losses(w, x) - losses(stepped, x)), signs[i])


def test_tiny_huge_and_zero_gradients_in_single_precision():
    x = np.array([[1e-30, 1e-30], [1e25, 0], [0, 0], [0, -1e-36]], np.float32)
    root = 0.5**0.5
    expected = [[1, root, 0, -root], [root, 1, 0, 0], [0, 0, 0, 0], [-root, 0, 0, 1]]
    found = compiled(linear, jnp.zeros(2, jnp.float32), x)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    found = compiled(linear, jnp.zeros(2, jnp.float32), x, kind="sign")
    np.testing.assert_array_equal(found, np.sign(expected))
    # and in factors, here the outer products of an activation x and a cotangent 1e-25
    dense = lambda w, x: 1e-25 * jnp.sum(x @ w)
    x = np.array([[1e-10, 1e-10], [1e20, 0]], np.float32)
    found = compiled(dense, jnp.zeros((2, 3), jnp.float32), x)
    np.testing.assert_allclose(found, [[1, root], [root, 1]], rtol=1e-6)


@pytest.mark.parametrize("kind", ["cosine", "sign"])
def test_classes_against_the_definition(kind):
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(9, 3)) + 0.5, np.array([0, 1, 2, 0, 1, 2, 0, 0, 1])
    y, other_labels = rng.normal(size=(5, 3)), np.array([0, 1, 2, 2, 0])
    value = (lambda c: c) if kind == "cosine" else np.sign
    pairs, across = value(dense_cosines(x, x)), value(dense_cosines(x, y))
    matrix, crossed = np.zeros((3, 3)), np.zeros((3, 3))
    for a, b in itertools.product(range(3), repeat=2):
        inside = [(i, j) for i in range(9) for j in range(9) if i != j]
        matrix[a, b] = np.mean([pairs[i, j] for i, j in inside if (labels[i], labels[j]) == (a, b)])
        crossed[a, b] = np.mean(across[np.ix_(labels == a, other_labels == b)])
    found = by_class(linear, jnp.zeros(3), x, labels, 3, kind=kind)
    np.testing.assert_allclose(found.matrix, matrix, atol=1e-14)
    np.testing.assert_allclose(found.within, np.trace(matrix) / 3)
    np.testing.assert_allclose(found.between, (np.sum(matrix) - np.trace(matrix)) / 6)
    found = by_class(
        linear, jnp.zeros(3), x, labels, 3, kind=kind, other=y, other_labels=other_labels
    )
    np.testing.assert_allclose(found.matrix, crossed, atol=1e-14)


def test_classes_by_hand():
    """Two examples along one axis, one against it; a class of one and an empty class."""
    x, labels = jnp.array([[1.0, 0], [5.0, 0], [-1.0, 1.0]]), jnp.array([0, 0, 1])
    found = by_class(linear, jnp.zeros(2), x, labels, 3)
    r = -(0.5**0.5)
    np.testing.assert_allclose(found.matrix, [[1, r, np.nan], [r] + [np.nan] * 2, [np.nan] * 3])
    np.testing.assert_allclose(found.within, 1)
    np.testing.assert_allclose(found.between, r)
    apart = compiled(linear, jnp.zeros(2), x, kind="distance")
    np.testing.assert_allclose(apart, [[0, 0, 1 - r], [0, 0, 1 - r], [1 - r, 1 - r, 0]], atol=1e-15)


def test_labels_outside_the_classes_are_seen_under_jit_too():
    classes = jax.jit(lambda labels: class_stiffness(linear, jnp.zeros(2), jnp.eye(2), labels, 2))
    assert np.isnan(classes(jnp.array([0, 2])).between)
    assert classes(jnp.array([0, 1])).between == 0


def test_errors():
    w, x = jnp.zeros(2), jnp.ones((3, 2))
    with pytest.raises(ValueError, match=r"kind must be 'cosine', 'sign' or 'distance'; got 'dot'"):
        stiffness(linear, w, x, kind="dot")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"agree in their leading example axis"):
        stiffness(lambda w, e: w @ e[0], w, (x, jnp.ones(4)))
    with pytest.raises(ValueError, match=r"shapes of one of batch; got \(4,\), expected \(2,\)"):
        stiffness(linear, w, x, jnp.ones((3, 4)))
    classes = lambda labels, k=2, **more: class_stiffness(linear, w, x, labels, k, **more)
    with pytest.raises(ValueError, match=r"labels must lie in 0, ..., 1; got \[-1, 2\]"):
        classes(jnp.array([0, 2, -1]))
    with pytest.raises(ValueError, match=r"labels must be 3 integers.*got shape \(2,\), int"):
        classes(jnp.array([0, 1]))
    with pytest.raises(ValueError, match=r"labels must be 3 integers.*shape \(3,\), float"):
        classes(jnp.zeros(3))
    with pytest.raises(ValueError, match=r"num_classes must be at least 1; got 0"):
        classes(jnp.zeros(3, int), 0)
    with pytest.raises(ValueError, match=r"other and other_labels must be given together"):
        classes(jnp.zeros(3, int), other=x)


def test_one_example_makes_no_pair():
    loss, x = lambda w, x: jnp.sum(jnp.tanh(w * x)), jnp.ones((1, 2))
    with pytest.raises(ValueError, match=r"batch must hold at least two examples.*holds 1"):
        class_stiffness(loss, jnp.ones(2), x, jnp.array([0]), 2)
    found = by_class(loss, jnp.ones(2), x, jnp.array([0]), 2, other=x, other_labels=jnp.array([1]))
    np.testing.assert_allclose(found.between, 1, rtol=1e-6)
    with pytest.raises(ValueError, match=r"stiffness is that of pairs: batch .* holds 1"):
        Monitor(["stiffness"], example_loss_fn=loss)(jnp.ones(2), x)
