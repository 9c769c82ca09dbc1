"""The two ways to eigenvalues against LAPACK and by hand; what the claims notice."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from paper_figures.metric_power_method import claims, eigenvalues, five_digits, power_method


def test_power_method_with_negative_eigenvalues():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(20, 20)))[0]
    spectrum = np.concatenate([[-9.0, 7.0, -5.0, 4.0], rng.uniform(-2, 2, 16)])
    values, steps = power_method(basis @ np.diag(spectrum) @ basis.T, 4)
    np.testing.assert_allclose(values, [-9, 7, -5, 4], rtol=1e-8)
    assert steps < 200


def test_eigenvalues_of_a_known_hessian():
    # E = mean over x of (x . p)^2 / 2 has the Hessian mean x x', here diagonal; less p_0^2
    def example_loss(p, x):
        return jnp.sum(x * p["w"]) ** 2 / 2 - 4 * p["w"][0] ** 2

    batch = jnp.sqrt(5.0) * jnp.diag(jnp.sqrt(jnp.array([1.0, 5.0, 3.0, 2.0, 0.1])))
    found = eigenvalues(example_loss, {"w": jnp.ones(5)}, batch, 3)
    for values in (found.matrix_free, found.standard, found.exact):
        np.testing.assert_allclose(values, [-7, 5, 3], rtol=1e-6)
    assert all(claim.holds for claim in claims(found, 1.0))
    wrong = replace(found, matrix_free=np.array([-7, 5, 2.0]))
    assert not any(claim.holds for claim in claims(wrong, 0.5))


def test_data_are_the_first_five_digits():
    data = five_digits("quick")
    assert data.train.x.shape[1] == 64
    assert np.unique(data.train.y).tolist() == np.unique(data.test.y).tolist() == [0, 1, 2, 3, 4]
