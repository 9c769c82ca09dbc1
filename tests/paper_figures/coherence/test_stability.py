"""Sharpness and non-uniformity: SGD on quadratics by hand, and claims on made-up runs."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from analysis.data import digits, split
from analysis.scale import Conditions
from analysis.studies.coherence.stability import Cell, Minimum, Restart, noise_of, run
from igr.diagnostics import sgd_region
from paper_figures.coherence import stability as figure


def every_batch(rows, eta, size):
    """The steps I - eta H_B of all batches, from the Hessians g g' of the examples."""
    hessians = np.einsum("ni,nj->nij", rows, rows)
    batches = itertools.combinations(range(len(rows)), size)
    return [np.eye(rows.shape[1]) - eta * hessians[list(b)].mean(0) for b in batches]


def mean_square_radius(rows, eta, size):
    """The spectral radius of E (w - w*)(w - w*)' -> the same a step later."""
    products = [np.kron(step, step) for step in every_batch(rows, eta, size)]
    return np.abs(np.linalg.eigvals(np.mean(products, axis=0))).max()


@pytest.mark.parametrize("size", [1, 2, 4])
def test_stability_against_all_batches(size):
    rows = np.random.default_rng(0).normal(size=(5, 3))  # no flat direction
    minimum = Minimum.of(rows @ rows.T)
    stable = []
    for eta in np.geomspace(0.02, 4, 25):
        steps = every_batch(rows, eta, size)
        growth = np.linalg.eigvalsh(np.mean([step @ step for step in steps], axis=0))[-1]
        np.testing.assert_allclose(minimum.growth(eta, size), growth - 1, atol=1e-10)
        stable.append(noise_of(size, 5) * minimum.gain(eta) < 1)
        assert stable[-1] == (mean_square_radius(rows, eta, size) < 1)
        assert stable[-1] or minimum.growth(eta, size) > 0  # the theorem suffices
    assert 3 < sum(stable) < 22
    low, high = 0.02, 4.0  # the rate at which the mean square neither grows nor shrinks
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_square_radius(rows, middle, size) < 1 else (low, middle)
    assert noise_of(size, 5) * minimum.gain(low * (1 - 1e-5)) == pytest.approx(1, abs=2e-3)


def test_the_remark_is_not_necessary_in_two_dimensions():
    """docs/figures.md: s is beyond 1/eta and the mean square shrinks all the same."""
    rows, eta = np.array([[1.0, 4.0], [2.0, -2.0], [4.0, 1.0]]), 1 / 8
    hessians = np.einsum("ni,nj->nij", rows, rows)
    mean = hessians.mean(0)
    sigma = np.mean(hessians @ hessians, axis=0) - mean @ mean
    a, s = np.linalg.eigvalsh(mean)[-1], np.linalg.eigvalsh(sigma)[-1] ** 0.5
    assert a * eta / 2 < 0.6
    assert not sgd_region(eta, 1, 3).allows(a, s)
    assert mean_square_radius(rows, eta, 1) < 0.97
    assert Minimum.of(rows @ rows.T).gain(eta) < 0.97


@pytest.mark.slow
def test_a_linear_network_has_the_stability_of_its_inputs():
    """No hidden layer: g_i is (x_i, 1) at any weights, so that all is known beforehand."""
    restart = Restart((0.5, 8.0), (2, 5), steps=60, samples=6)
    cell = Cell("digits", None, (0.02, 0.05), (0, 1), 12, depth=0, steps=40, restart=restart)
    found = run(cell)
    inputs = split(digits(), 597, seed=0).first(12).train.x
    rows = np.hstack([inputs, np.ones((12, 1))])
    hessians = np.einsum("ni,nj->nij", rows, rows)
    mean = hessians.mean(0)
    sigma = np.mean(hessians @ hessians, axis=0) - mean @ mean
    assert found["converged"].all()
    np.testing.assert_allclose(found["sharpness"], np.linalg.eigvalsh(mean)[-1], rtol=2e-3)
    top = np.linalg.eigvalsh(sigma)[-1] ** 0.5
    np.testing.assert_allclose(found["non_uniformity"], top, rtol=2e-3)
    minimum = Minimum.of(rows @ rows.T)
    np.testing.assert_allclose(found["gain"][1], minimum.gain(0.05), rtol=1e-3)
    np.testing.assert_allclose(
        found["restart_growth"][1, 0, 0, 1], minimum.growth(0.025, 5), rtol=1e-4
    )
    losses = found["restart_loss"]
    assert losses.shape == (2, 2, 2, 2, 7)
    # the push is random in every weight: E loss = moved^2 / 2 times the trace of H, here 16 draws
    assert 0.3 < losses[..., 0].mean() / (restart.moved**2 / 2 * np.trace(mean)) < 3
    assert (losses[:, :, 0, :, -1] < losses[:, :, 0, :, 0]).all()
    assert found["restart_gain"][1, 0, 1] == np.inf
    assert (losses[1, :, 1, :, -1] > 100 * losses[1, :, 1, :, 0]).all()


def made_up(cell, as_said):
    """Minima that obey the paper's limits, the flatter the noisier the step; or the contrary."""
    rates = np.array(cell.learning_rates)[:, None]
    size = cell.batch_size or cell.examples
    shape = (len(rates), len(cell.seeds))
    share = np.log(size) / np.log(cell.examples)
    a = 1.6 * share / rates if as_said else 200 * (1.3 - 0.2 * share) * rates**0.5
    a = a * (1 + 0.01 * np.arange(len(cell.seeds)))
    values = {
        "train_loss": np.zeros((*shape, 2)),
        "sharpness": a,
        "non_uniformity": a * (2 if as_said else 100),
        "growth": np.full(shape, -0.1 if as_said else 0.1),
        "gain": np.full(shape, 0.1 if as_said else 1e4),
        "converged": np.ones(shape, bool),
        "source": "made up",
    }
    if cell.restart is None:
        return values
    factors = np.array(cell.restart.factors)[:, None]
    noise = np.sqrt([noise_of(size, cell.examples) for size in cell.restart.batch_sizes])
    limited = values["non_uniformity"][..., None, None] * rates[..., None, None] * factors * noise
    kept = limited < 1 if as_said else np.broadcast_to(factors > 0.2, limited.shape)
    losses = np.ones((*limited.shape, 2))
    losses[..., 1] = np.where(kept, 0.5, 1e4)
    return values | {
        "restart_loss": losses,
        "restart_gain": np.zeros(limited.shape[:-1]),
        "restart_growth": np.where(kept, -1.0, 1.0) if as_said else np.full(limited.shape, -1.0),
    }


@pytest.mark.parametrize("as_said", [True, False])
def test_the_claims_follow_the_numbers(monkeypatch, as_said):
    cells = [
        Cell("digits", size, seeds=(0, 1), restart=None if size else Restart())
        for size in (None, 32, 8, 2)
    ]
    results = {cell: made_up(cell, as_said) for cell in cells}
    if as_said:  # a run that diverged counts for nothing
        for name in ("train_loss", "sharpness", "non_uniformity"):
            results[cells[1]][name][0, 0] = np.nan
    monkeypatch.setattr(figure, "computed", lambda name, _: SimpleNamespace(results=results))
    drawing = figure.figure_stability(Conditions())
    assert [claim.holds for claim in drawing.claims] == [as_said] * 10
    trained = drawing.table[drawing.table["what"] == "trained"]
    assert len(trained) == 4 * 3 * 2
    assert trained["settled"].sum() == 24 - as_said
    first = trained[(trained["B"] == 2) & (trained["eta"] == 0.1)].iloc[0]
    np.testing.assert_allclose(first["a eta/2"], first["a"] * 0.1 / 2)
    np.testing.assert_allclose(first["s/limit"], first["s"] * 0.1 * (318 / (2 * 319)) ** 0.5)
