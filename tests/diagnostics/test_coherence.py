import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import igr
from igr.diagnostics import coherence, coherence_from_batches, generalization_gap_bound
from igr.per_example import grouped_gradients

# With this loss the gradient of an example is the example itself.
linear = lambda w, x: w @ x
# And with this, at w = 1, x cos(x).
curved = lambda w, x: jnp.sum(jnp.sin(w * x))


compiled = jax.jit(coherence, static_argnums=0, static_argnames=("method", "probes", "chunk"))


def dense_coherence(g):
    """The mean of all products of two over the mean of all squares, from the definition."""
    n = len(g)
    pairs = np.mean([g[i] @ g[j] for i in range(n) for j in range(n)])
    return pairs / np.mean([g[i] @ g[i] for i in range(n)])


def test_against_the_definition(network, measured):
    g, found = network.gradients, measured[0]
    np.testing.assert_allclose(found.alpha, dense_coherence(g), rtol=1e-12)
    np.testing.assert_allclose(found.helped, 7 * found.alpha, rtol=1e-15)
    np.testing.assert_allclose(found.mean_gradient_square, np.sum(g.mean(0) ** 2), rtol=1e-12)
    np.testing.assert_allclose(found.mean_square, np.mean(np.sum(g**2, 1)), rtol=1e-12)
    assert found.standard_error == 0


@pytest.mark.parametrize("chunk", [None, 2, 20])
def test_chunks_of_every_length_add_up(chunk):
    x = np.random.default_rng(0).normal(size=(5, 3))
    found = compiled(curved, jnp.ones(3), x, chunk=chunk)
    np.testing.assert_allclose(found.alpha, dense_coherence(x * np.cos(x)), rtol=1e-13)


def test_where_gradients_must_be_formed_the_memory_is_that_of_a_few():
    masked = lambda w, x: jnp.sum(jnp.tanh(x @ (w * (w > 0))))
    w, x = jnp.ones((50, 100)), jnp.ones((64, 50)) / 50
    program: Any = jax.jit(lambda w, x: coherence(masked, w, x)).lower(w, x).compile()
    activations = 64 * 100 * 8
    assert program.memory_analysis().temp_size_in_bytes < 5 * w.nbytes + 5 * activations
    np.testing.assert_allclose(program(w, x).alpha, 1)  # where all gradients would take 64 w.nbytes


@pytest.mark.parametrize(
    ("gradients", "alpha"),
    [
        (np.eye(5), 1 / 5),  # orthogonal: Example 5.3
        (2.0 * np.ones((4, 3)), 1),  # equal
        (np.array([[1.0, 2], [-1, -2]]), 0),  # they cancel
        (np.tile(np.eye(2), (6, 1)), 1 / 2),  # six copies of two directions: each helps six
        (np.array([[1.0, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1]]), 4 / 6),  # 12/9 over 2
    ],
)
def test_by_hand(gradients, alpha):
    found = compiled(linear, jnp.zeros(gradients.shape[1]), gradients)
    np.testing.assert_allclose(found.alpha, alpha, atol=1e-15)
    np.testing.assert_allclose(found.helped, len(gradients) * alpha, atol=1e-14)
    scaled = compiled(linear, jnp.zeros(gradients.shape[1]), -3 * gradients)
    np.testing.assert_allclose(scaled.alpha, alpha, atol=1e-15)


def test_gradients_that_are_all_zero_have_no_coherence():
    assert np.isnan(compiled(linear, jnp.zeros(2), jnp.zeros((3, 2))).alpha)


def test_random_signs_over_all_signs_are_the_exact_sum(monkeypatch):
    """All 2^n draws, each once: the mean is exact, the variance is the one that is documented."""
    x = np.random.default_rng(0).normal(size=(4, 3)) + 0.5
    g = x * np.cos(x)
    signs = np.array(list(itertools.product((-1, 1), repeat=4)))
    monkeypatch.setattr(jax.random, "rademacher", lambda *_: jnp.asarray(signs, float))
    found = compiled(curved, jnp.ones(3), x, method="random_signs", probes=16)
    np.testing.assert_allclose(found.alpha, dense_coherence(g), rtol=1e-13)
    np.testing.assert_allclose(found.mean_gradient_square, np.sum(g.mean(0) ** 2), rtol=1e-13)
    centred = g - g.mean(0)
    products = centred @ centred.T
    variance = 2 * np.sum((products - np.diag(np.diag(products))) ** 2)
    error = found.standard_error / found.alpha * found.mean_square * 4
    np.testing.assert_allclose(error, np.sqrt(variance / 15))  # 16 draws, 15 degrees of freedom


def test_the_error_bar_holds_in_repeated_draws():
    g = np.random.default_rng(0).normal(size=(12, 5)) + 0.3
    keys = jax.random.split(jax.random.key(0), 400)
    draw = lambda key: coherence(linear, jnp.zeros(5), g, method="random_signs", probes=16, key=key)
    found = jax.jit(jax.vmap(draw))(keys)
    squares = np.mean(np.sum(g**2, 1))
    assert abs(np.mean(found.mean_square) - squares) < 3 * np.std(found.mean_square) / 20
    np.testing.assert_allclose(np.mean(found.standard_error), np.std(found.alpha), rtol=0.15)
    assert np.all((found.alpha >= 0) & (found.alpha <= 1))


def test_one_probe_knows_no_error_and_equal_gradients_need_no_more():
    found = compiled(linear, jnp.zeros(2), jnp.ones((3, 2)), method="random_signs", probes=1)
    np.testing.assert_allclose(found.alpha, 1)
    assert np.isinf(found.standard_error)


def test_theorem_5_6_on_a_distribution():
    """All means of k draws from three vectors, with replacement, are k a / (1 + (k - 1) a)."""
    g = np.array([[1.0, 0.5], [-0.3, 2.0], [0.7, 0.1]])
    alpha, k = dense_coherence(g), 3
    means = np.array([g[list(draw)].mean(0) for draw in itertools.product(range(3), repeat=k)])
    np.testing.assert_allclose(dense_coherence(means), k * alpha / (1 + (k - 1) * alpha))
    found = coherence_from_batches({"w": means}, k)
    np.testing.assert_allclose(found.alpha, alpha)
    np.testing.assert_allclose(found.helped, len(means) * k * alpha)
    np.testing.assert_allclose(found.mean_square, np.mean(np.sum(g**2, 1)))


def test_finite_sample_is_unbiased_over_the_partitions():
    """Over all orders of six examples: the mean of both parts is theirs, from per-example ones."""
    g = np.random.default_rng(3).normal(size=(6, 2)) + 0.4
    parts = []
    for order in itertools.permutations(range(6)):
        w = g[list(order)].reshape(3, 2, 2).mean(1)
        centre = w.mean(0)
        parts.append((centre @ centre, np.sum((w - centre) ** 2) / 3))
    aligned, spread = np.mean(parts, axis=0)
    exact = compiled(linear, jnp.zeros(2), g)
    np.testing.assert_allclose(aligned, exact.mean_gradient_square)
    np.testing.assert_allclose(aligned + 5 / 2 * spread, exact.mean_square)
    w = g.reshape(3, 2, 2).mean(1)
    found = coherence_from_batches(w, 2, finite_sample=True)
    spread = np.sum((w - w.mean(0)) ** 2) / 3
    np.testing.assert_allclose(found.mean_square, aligned + 5 / 2 * spread)


def test_from_batches_of_one_and_of_orthogonal_examples():
    g = np.random.default_rng(0).normal(size=(6, 3))
    for finite_sample in (False, True):
        found = coherence_from_batches(g, 1, finite_sample=finite_sample)
        np.testing.assert_allclose(found.alpha, dense_coherence(g))
    batches = grouped_gradients(linear, jnp.zeros(12), jnp.eye(12), 4)
    found = coherence_from_batches(batches, 3, finite_sample=True)
    np.testing.assert_allclose(found.helped, 1)
    by_the_theorem = coherence_from_batches(batches, 3)
    np.testing.assert_allclose(by_the_theorem.helped, 12 * 0.25 / (3 - 2 * 0.25))


def test_the_bound_is_the_formula_of_theorem_5_4():
    rng = np.random.default_rng(0)
    alpha, rate = rng.uniform(size=6), rng.uniform(size=6) / 10
    found = generalization_gap_bound(alpha, rate, 50, lipschitz=3.0, smoothness=2.0)
    for steps in range(1, 7):
        terms = [
            np.prod(1 + rate[t + 1 : steps] * 2.0) * rate[t] * np.sqrt(2 * (1 - alpha[t]))
            for t in range(steps)
        ]
        np.testing.assert_allclose(found[steps - 1], 9 / 50 * np.sum(terms))


def test_the_bound_along_a_recorded_run():
    """Gradient descent on |w - x|^2 / 2: w[t] and all gradients are known."""
    x = np.random.default_rng(0).normal(size=(6, 2)) + 1
    pull = lambda w, x: jnp.sum((w - x) ** 2) / 2
    value_fn = lambda w: jnp.mean(jax.vmap(pull, (None, 0))(w, x))
    run = igr.run(optax.sgd(0.1), value_fn, jnp.zeros(2), 4)
    alphas = jax.lax.map(lambda w: coherence(pull, w, x).alpha, run.params)
    found = generalization_gap_bound(alphas[:-1], 0.1, 6, lipschitz=2.0, smoothness=1.0)
    w = [(1 - 0.9**t) * x.mean(0) for t in range(4)]
    terms = [0.1 * 1.1 ** (3 - t) * np.sqrt(2 * (1 - dense_coherence(w[t] - x))) for t in range(4)]
    np.testing.assert_allclose(found[-1], 4 / 6 * np.sum(terms))


def test_why_the_bound_holds():
    """Two draws differ by at most sqrt(2 (1 - alpha) E|g|^2) on average."""
    g = np.random.default_rng(0).normal(size=(9, 3)) + 1
    apart = np.array([np.linalg.norm(a - b) for a in g for b in g])
    root = np.sqrt(2 * (1 - dense_coherence(g)) * np.mean(np.sum(g**2, 1)))
    assert np.mean(apart) <= root
    np.testing.assert_allclose(np.sqrt(np.mean(apart**2)), root)


def test_low_precision_parameters_give_single_precision_sums():
    g = jnp.ones((1000, 2), jnp.bfloat16)
    found = compiled(linear, jnp.zeros(2, jnp.bfloat16), g)
    assert found.alpha.dtype == jnp.float32
    np.testing.assert_allclose(found.mean_square, 2)
    np.testing.assert_allclose(found.alpha, 1, rtol=1e-6)


def test_errors():
    w, x = jnp.zeros(2), jnp.ones((3, 2))
    with pytest.raises(ValueError, match=r"agree in their leading example axis; got 3 in batch"):
        coherence(lambda w, e: w @ e[0], w, (x, jnp.ones(4)))
    with pytest.raises(ValueError, match=r"'exact' or 'random_signs'; got 'fast'"):
        coherence(linear, w, x, method="fast")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"probes must be at least 1; got 0"):
        coherence(linear, w, x, method="random_signs", probes=0)
    with pytest.raises(ValueError, match=r"chunk must be at least 1; got 0"):
        coherence(linear, w, x, chunk=0)
    with pytest.raises(ValueError, match=r"one real floating number"):
        coherence(lambda w, x: w * x, w, x)
    with pytest.raises(ValueError, match=r"at least two batches; got 1"):
        coherence_from_batches(x[:1], 4)
    with pytest.raises(
        ValueError, match=r"agree in a leading axis of batches; got shapes \[\(3, 2"
    ):
        coherence_from_batches([x, jnp.ones(2)], 4)
    with pytest.raises(ValueError, match=r"at least one floating array"):
        coherence_from_batches({}, 4)
    with pytest.raises(TypeError, match=r"batch_size must be an integer; got 2\.5"):
        coherence_from_batches(x, 2.5)  # pyright: ignore[reportArgumentType]
    bound = lambda a, h=0.1, L=1.0: generalization_gap_bound(a, h, 9, lipschitz=L, smoothness=1)
    with pytest.raises(ValueError, match=r"alphas must lie in \[0, 1\]"):
        bound(jnp.array([0.5, 1.5]))
    with pytest.raises(ValueError, match=r"alphas must be a vector, one a step; got shape \(\)"):
        bound(jnp.array(0.5))
    with pytest.raises(ValueError, match=r"learning_rates must be one number or 2.*shape \(3,\)"):
        bound(jnp.ones(2), jnp.ones(3))
    with pytest.raises(ValueError, match=r"lipschitz must be finite and not negative; got -1"):
        bound(jnp.ones(2), L=-1.0)
