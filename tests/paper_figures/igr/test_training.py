"""Figures A.3 to A.6 on numbers made up so that what they must say is known."""

import numpy as np
import pandas as pd
import pytest

from analysis.scale import Conditions
from analysis.studies.igr.width_and_rate import Cell, run
from analysis.sweep import CellResult, Study, Sweep
from paper_figures.igr import training as figures
from paper_figures.igr import width_and_rate

RATES, SEEDS = (0.1, 0.2, 0.5), (0, 1)


def made_up(cell, as_said):
    """Ten samples: loss and R fall, R/E the further the larger rate and width; or the reverse."""
    time = np.linspace(0, 1, 10)
    shape = (len(cell.learning_rates), len(cell.seeds), 10)
    rates = np.array(cell.learning_rates)[:, None, None]
    part = rates if as_said else 1 / rates
    noise = 1 + 1e-4 * np.arange(len(cell.seeds))[:, None]
    loss = np.ones(shape) * np.exp(-6 * time) if as_said else np.ones(shape) * np.exp(6 * time)
    ratio = np.exp(-3 * part * time) * noise / cell.width ** (1 if as_said else -1)
    turn = 1 + (time - 0.5) ** 2 if as_said else 3 - time
    best = np.clip(0.9 + 0.1 * rates + 1e-4 * cell.width * (1 if as_said else -1), 0, 0.97)
    accuracy = best - 0.01 * np.abs(time - 0.6) if as_said else 0.5 + 0.1 * time - 0.1 * rates
    grown = 1 - np.exp(-20 * time) if as_said else -time
    return {
        "train_loss": loss,
        "R": loss * ratio,
        "norm": 10 + grown * np.ones(shape) * noise,
        "test_loss": turn * np.ones(shape),
        "test_R": turn * ratio if not as_said else turn * np.exp(-0.1 * rates) * noise,
        "train_accuracy": np.ones(shape),
        "test_accuracy": accuracy * np.ones(shape),
        "step": np.tile(np.arange(0, 100, 10), (len(cell.learning_rates), 1)),
        "kept": np.full(shape[:2], 6 if as_said else 9),
        "parameters": 100 * cell.width,
        "source": "made up",
    }


@pytest.fixture(params=[True, False])
def as_said(request, monkeypatch):
    cells = tuple(Cell("digits", width, RATES, SEEDS) for width in (10, 50, 100))
    results = {cell: CellResult(made_up(cell, request.param)) for cell in cells}
    for module in (figures, width_and_rate):
        monkeypatch.setattr(
            module, "computed", lambda name, _: Sweep(Study(name, run, cells), results)
        )
    return request.param


def test_the_claims_follow_the_numbers(as_said):
    training = figures.claims_of_training(figures.measured(Conditions()))
    assert [claim.holds for claim in training] == [as_said] * 4
    tests = figures.claims_of_tests(figures.measured(Conditions()))
    assert [claim.holds for claim in tests] == [as_said] * 4
    sizes = figures.figure_a6(Conditions())
    assert [claim.holds for claim in sizes.claims[:2]] == [as_said] * 2
    assert sizes.table["parameters"].nunique() == 3


def test_equal_time_is_that_of_the_smallest_rate(as_said):
    drawing = figures.figure_a5(Conditions())
    assert drawing.claims[0].measured.startswith("i h = 9: ")
    table = figures.measured(Conditions())
    assert set(table["h"]) == set(RATES)
    at_end = table[(table["step"] == 90) & (table["h"] == 0.1)]
    np.testing.assert_allclose(at_end["time"], 9.0)


def test_nine_tenths_of_a_change():
    step = np.arange(11.0)
    run_of = pd.DataFrame({"h": 0.1, "seed": 0, "step": step, "norm": 1 + np.minimum(step, 5),
                           "E": np.exp(-step)})  # fmt: skip
    assert figures._when_settled(run_of, "norm").item() == pytest.approx(0.5)  # 4.5 of 5, at 5
    assert figures._when_settled(run_of, "E").item() == pytest.approx(0.9)


def test_what_rises_from_zero_before_it_falls_turns_from_its_highest_alone():
    run = pd.Series([0.1, 2.0, 1.0, 1.5])
    assert not figures._turns(run)
    assert figures._from_highest(run)
    assert figures._turns(run.iloc[1:])
    assert not figures._from_highest(pd.Series([0.1, 2.0, 1.0, 1.05]))
