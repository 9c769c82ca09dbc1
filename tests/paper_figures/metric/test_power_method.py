"""The two ways to eigenvalues against LAPACK and by hand; what the claims notice."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from analysis.scale import Conditions
from analysis.studies.metric.power_method import (
    Cell,
    eigenvalues,
    five_digits,
    power_method,
    run,
)
from paper_figures.metric import power_method as figure
from paper_figures.metric.power_method import claims


def test_power_method_with_negative_eigenvalues():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(20, 20)))[0]
    spectrum = np.concatenate([[-9.0, 7.0, -5.0, 4.0], rng.uniform(-2, 2, 16)])
    values, steps = power_method(basis @ np.diag(spectrum) @ basis.T, 4)
    np.testing.assert_allclose(values, [-9, 7, -5, 4], rtol=1e-8)
    assert steps < 200


@pytest.mark.slow
def test_eigenvalues_of_a_known_hessian():
    # E = mean over x of (x . p)^2 / 2 has the Hessian mean x x', here diagonal; less p_0^2
    def example_loss(p, x):
        return jnp.sum(x * p["w"]) ** 2 / 2 - 4 * p["w"][0] ** 2

    batch = jnp.sqrt(5.0) * jnp.diag(jnp.sqrt(jnp.array([1.0, 5.0, 3.0, 2.0, 0.1])))
    found = eigenvalues(example_loss, {"w": jnp.ones(5)}, batch, 3, tolerance=1e-6)
    for way in ("matrix_free", "standard", "exact"):
        np.testing.assert_allclose(found[way], [-7, 5, 3], rtol=1e-6)
    assert all(claim.holds for claim in claims({**found, "accuracy": 1.0}))
    wrong = {**found, "matrix_free": np.array([-7, 5, 2.0]), "accuracy": 0.5}
    assert not any(claim.holds for claim in claims(wrong))


def test_data_are_the_first_five_digits():
    data = five_digits("digits")
    assert data.train.x.shape[1] == 64
    assert np.unique(data.train.y).tolist() == np.unique(data.test.y).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_the_figure_shows_what_the_study_found(monkeypatch):
    cell = Cell("digits", width=2, top=2, steps=1)
    found = run(cell)
    assert found["parameters"] == 64 * 2 + 2 + 2 * 5 + 5
    assert 0 <= found["accuracy"] <= 1
    swept = SimpleNamespace(results={cell: SimpleNamespace(values=found)})
    monkeypatch.setattr(figure, "computed", lambda name, _: swept)
    drawing = figure.figure_5_2(Conditions())
    np.testing.assert_array_equal(drawing.table["matrix-free"], found["matrix_free"])
    assert len(drawing.picture.axes[0].patches) == 4
    np.testing.assert_allclose(found["matrix_free"], found["exact"], rtol=1e-4)
