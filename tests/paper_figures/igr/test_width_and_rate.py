"""Figures 2a and 2b on results made up so that what they must say is known."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from analysis.scale import Conditions
from analysis.studies.igr.width_and_rate import Cell, run
from analysis.sweep import CellResult, Study, Sweep
from paper_figures.evidence import rank_correlation
from paper_figures.igr import width_and_rate as figures


def made_up(cell, falls):
    """Three samples; R falls (or rises) with lambda at the best accuracy, the second sample."""
    rates = np.array(cell.learning_rates)
    shape = (len(rates), len(cell.seeds), 3)
    noise = 1 + 0.01 * np.random.default_rng(cell.width).normal(size=shape)
    size = (rates * cell.width)[:, None, None]
    train_accuracy = np.ones(shape)
    train_accuracy[0, 0] = 0.9  # this run never fits
    return {
        "R": size ** (-1.0 if falls else 1.0) * noise,
        "train_loss": np.broadcast_to([2.0, 0.04, 0.03], shape),
        "train_accuracy": train_accuracy,
        "test_accuracy": np.ones(shape) * (0.9 + 0.001 * size) * np.array([0.5, 1.0, 0.99]),
        "kept": np.ones(shape[:2], int),
        "step": np.tile([0, 10, 20], (len(rates), 1)),
        "parameters": cell.width,
        "source": "made up",
    }


@pytest.fixture(params=[True, False])
def falls(request, monkeypatch):
    cells = tuple(Cell("digits", width, (0.1, 0.2, 0.5), (0, 1)) for width in (10, 100))
    results = {cell: CellResult(made_up(cell, request.param)) for cell in cells}
    monkeypatch.setattr(
        figures, "computed", lambda name, _: Sweep(Study(name, run, cells), results)
    )
    return request.param


def test_the_claims_follow_the_numbers(falls):
    drawing = figures.figure_2a(Conditions())
    assert [claim.holds for claim in drawing.claims[:2]] == [falls, falls]
    assert all("not divided by m" in claim.claim for claim in drawing.claims[2:])
    (accuracy,) = figures.figure_2b(Conditions()).claims
    assert accuracy.holds


def test_the_table(falls):
    table = figures.measured(Conditions())
    assert len(table) == 2 * (2 * 3 * 2 - 1 * 2)  # two moments; one run a width left out
    assert set(table["when"]) == {"max accuracy", "loss 0.05"}
    assert (table.loc[table["when"] == "max accuracy", "step"] == 10).all()
    matched = table[table["when"] == "loss 0.05"]
    np.testing.assert_allclose(matched["E"], 0.05)
    assert matched["step"].between(9, 10).all()  # 0.05 lies between 2 and 0.04
    np.testing.assert_allclose(table["slope squared"], table["R"] * table["parameters"])
    np.testing.assert_allclose(table["lambda"], table["h"] * table["parameters"] / 4)


def test_rank_correlation_and_its_interval():
    rng = np.random.default_rng(1)
    x = np.arange(12.0)
    clear = rank_correlation(x, [v + 0.1 * rng.normal(size=5) for v in -x])
    assert clear.rho == clear.low == clear.high == -1.0
    vague = rank_correlation(x, [v + 30 * rng.normal(size=5) for v in x])
    assert vague.high - vague.low > 0.3
    assert vague.low <= vague.rho <= vague.high
    one = rng.normal(size=12)
    found = rank_correlation(one, list(x[:, None]))
    assert found.rho == pytest.approx(spearmanr(one, x).statistic, abs=1e-3)
    with pytest.raises(ValueError, match="needs three points; got 2"):
        rank_correlation(x[:2], [x, x])
