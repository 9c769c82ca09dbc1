"""Figures 3a and 3b on results made up so that what they must say is known, and the study."""

import numpy as np
import pytest

from analysis.studies.igr_noise import Cell, run
from analysis.sweep import CellResult, Study, Sweep
from paper_figures import igr_noise as figures

LEVELS = (0.0, 0.5, 3.0)


def made_up(cell, flatter):
    """Slopes fall (or rise) with the rate, accuracies the other way."""
    rates = np.array(cell.learning_rates)[:, None, None, None]
    shape = (len(rates), len(cell.seeds), len(cell.levels), cell.draws)
    noise = 1 + 0.001 * np.random.default_rng(0).normal(size=shape)
    ease = (rates if flatter else 1 / rates) * noise
    sigma = np.array(cell.levels)[:, None]
    train_accuracy = np.ones((*shape[:2], 2))
    train_accuracy[0, 1] = 0.99  # this run never fits
    return {
        "slope": (1 + sigma) / ease,
        "loss": (1 + sigma) / ease,
        "accuracy": np.clip(0.9 - 0.25 * sigma / ease - 0.01 / ease, 0.1, 1),
        "train_accuracy": train_accuracy,
        "step": np.tile([0, 10], (len(rates), 1)),
        "kept": np.ones(shape[:2], int),
        "source": "made up",
    }


@pytest.fixture(params=[True, False])
def flatter(request, monkeypatch):
    cells = tuple(
        Cell("digits", rates, (0, 1), levels=LEVELS, draws=4) for rates in ((0.5, 1.0), (2.0,))
    )
    results = {cell: CellResult(made_up(cell, request.param)) for cell in cells}
    monkeypatch.setattr(figures, "computed", lambda name: Sweep(Study(name, run, cells), results))
    return request.param


def test_the_claims_follow_the_numbers(flatter):
    for drawing in (figures.figure_3a(), figures.figure_3b()):
        assert [claim.holds for claim in drawing.claims] == [flatter, flatter]
    assert "2 of 2 levels" in figures.figure_3a().claims[1].measured or not flatter


def test_the_table(flatter):
    table = figures.measured()
    assert len(table) == (2 * 3 - 2) * len(LEVELS)  # in each cell one run is left out
    assert (table["step"] == 10).all()
    clean = table[(table["sigma"] == 0) & (table["h"] == 2.0)]
    np.testing.assert_allclose(clean["slope"], 0.5 if flatter else 2.0, rtol=0.01)
    assert set(figures.by_level(table, "slope")) == set(LEVELS)
    assert figures.by_level(table, "slope")[3.0].rho == (-1.0 if flatter else 1.0)


def test_half_way_where_so_much_is_never_lost():
    assert figures.half_way(np.array([0.0, 1.0, 3.0]), np.array([0.9, 0.9, 0.6])) == 3.0


@pytest.mark.slow
def test_the_study_on_a_small_cell():
    cell = Cell("digits", (0.1, 0.5), (0,), 8, 1, 120, 2, levels=LEVELS, draws=3, examples=100)
    values = run(cell)
    assert values["slope"].shape == values["accuracy"].shape == (2, 1, 3, 3)
    kept = np.take_along_axis(values["test_accuracy"], values["kept"][..., None], -1)
    # without noise every draw is the kept network itself
    np.testing.assert_allclose(values["accuracy"][:, :, 0], np.repeat(kept, 3, -1), atol=1e-6)
    assert np.ptp(values["slope"][:, :, 0]) > 0  # of two rates
    np.testing.assert_array_equal(np.ptp(values["slope"][:, :, 0], axis=-1), 0)
    assert (np.ptp(values["slope"][:, :, 2], axis=-1) > 0).all()
    assert (values["accuracy"][:, :, 2].mean(-1) < kept[..., 0]).all()
