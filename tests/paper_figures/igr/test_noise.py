"""Figures 3a and 3b on results made up so that what they must say is known, and the study."""

from dataclasses import replace

import numpy as np
import pytest

from analysis.scale import Conditions
from analysis.studies.igr.noise import Cell, run
from analysis.sweep import CellResult, Study, Sweep
from paper_figures.igr import noise as figures

LEVELS = (0.0, 0.5, 3.0)


def made_up(cell, flatter, at_loss):
    """Slopes fall (or rise) with the rate, accuracies the other way; so too at a matched loss."""
    rates = np.array(cell.learning_rates)[:, None, None, None]
    shape = (len(rates), len(cell.seeds), len(cell.levels), cell.draws)
    noise = 1 + 0.001 * np.random.default_rng(0).normal(size=shape)
    sigma = np.array(cell.levels)[:, None]
    train_accuracy = np.ones((*shape[:2], 2))
    train_accuracy[0, 1] = 0.99  # this run never fits
    found = {}
    for prefix, falls in (("", flatter), ("matched_", at_loss)):
        ease = (rates if falls else 1 / rates) * noise
        found |= {
            f"{prefix}slope": (1 + sigma) / ease,
            f"{prefix}loss": (1 + sigma) / ease,
            f"{prefix}accuracy": np.clip(0.9 - 0.25 * sigma / ease - 0.01 / ease, 0.1, 1),
        }
    return found | {
        "matched_step": np.full(shape[:2], 7.0),
        "train_accuracy": train_accuracy,
        "step": np.tile([0, 10], (len(rates), 1)),
        "kept": np.ones(shape[:2], int),
        "source": "made up",
    }


@pytest.fixture(params=[(True, True), (True, False), (False, True)])
def flatter(request, monkeypatch):
    cells = tuple(
        Cell("digits", rates, (0, 1), levels=LEVELS, draws=4) for rates in ((0.5, 1.0), (2.0,))
    )
    results = {cell: CellResult(made_up(cell, *request.param)) for cell in cells}
    monkeypatch.setattr(
        figures, "computed", lambda name, _: Sweep(Study(name, run, cells), results)
    )
    return request.param


def test_the_claims_follow_the_numbers(flatter):
    at_best, at_loss = flatter
    slope, accuracy = (
        one.claims for one in (figures.figure_3a(Conditions()), figures.figure_3b(Conditions()))
    )
    assert [claim.holds for claim in slope] == [at_best, at_loss, at_best, at_loss]
    assert [claim.holds for claim in accuracy] == [at_best, at_best, at_loss, at_loss]
    for claim in (*slope, *accuracy):
        assert ("where E falls to 0.05" in claim.claim) != ("maximum test" in claim.claim)
    assert "2 of 2 levels" in slope[2].measured or not at_best


def test_the_table(flatter):
    both = figures.measured(Conditions())
    assert len(both) == 2 * (2 * 3 - 2) * len(LEVELS)  # in each cell one run is left out
    for (when, step), falls in zip((("max accuracy", 10), ("loss 0.05", 7)), flatter, strict=True):
        table = both[both["when"] == when]
        assert (table["step"] == step).all()
        clean = table[(table["sigma"] == 0) & (table["h"] == 2.0)]
        np.testing.assert_allclose(clean["slope"], 0.5 if falls else 2.0, rtol=0.01)
        assert set(figures.by_level(table, "slope")) == set(LEVELS)
        assert figures.by_level(table, "slope")[3.0].rho == (-1.0 if falls else 1.0)


def test_half_way_where_so_much_is_never_lost():
    assert figures.half_way(np.array([0.0, 1.0, 3.0]), np.array([0.9, 0.9, 0.6])) == 3.0


@pytest.mark.slow
def test_the_study_on_a_small_cell():
    cell = Cell(
        "digits", (0.5, 1.0), (0,), 30, 1, 4000, 20, levels=LEVELS, draws=3, examples=1200,
        matched=0.2,
    )  # fmt: skip
    values = run(cell)
    assert values["slope"].shape == values["accuracy"].shape == (2, 1, 3, 3)
    kept = np.take_along_axis(values["test_accuracy"], values["kept"][..., None], -1)
    # without noise every draw is the kept network itself
    np.testing.assert_allclose(values["accuracy"][:, :, 0], np.repeat(kept, 3, -1), atol=1e-6)
    assert np.ptp(values["slope"][:, :, 0]) > 0  # of two rates
    np.testing.assert_array_equal(np.ptp(values["slope"][:, :, 0], axis=-1), 0)
    assert (np.ptp(values["slope"][:, :, 2], axis=-1) > 0).all()
    assert (values["accuracy"][:, :, 2].mean(-1) < kept[..., 0]).all()
    # at the matched loss, to a step's fall of it, by a loss of all examples under no noise at all
    np.testing.assert_allclose(values["matched_loss"][:, :, 0], 0.2, rtol=0.05)
    assert (values["train_accuracy"] == 1).any(-1).all()
    after = np.argmax(values["train_loss"] <= 0.2, axis=-1)
    steps = np.take_along_axis(values["step"], after, 1)
    assert (steps - 200 <= values["matched_step"]).all()
    assert (values["matched_step"] <= steps).all()
    never = run(replace(cell, learning_rates=(0.01,), steps=10, samples=1))
    assert np.isnan(never["matched_slope"]).all()
    assert np.isfinite(never["slope"]).all()
