"""Claims of Figure 3 on made-up runs."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from analysis.scale import Conditions
from analysis.studies.mgs.alexnet import run, study
from analysis.sweep import CellResult, Study, Sweep
from paper_figures.mgs import alexnet as figure

ORDER = ("none", "weight", "dropout", "loss gradient", "MGS")  # worst first


@pytest.fixture(params=[1, -1], ids=["as the paper says", "the contrary"])
def sign(request, monkeypatch):
    """MGS has the smallest kernel and keeps the highest accuracy; or it has the largest."""
    results = {}
    for cell in study("quick").cells:
        place = ORDER.index(cell.method) if request.param > 0 else 4 - ORDER.index(cell.method)
        seeds = np.arange(len(cell.seeds))[:, None] / 1000
        ends = np.concatenate([np.linspace(0.1, 0.9, 5), np.full(6, 0.5 + place / 10)])
        values = {
            "test_accuracy": seeds + ends,
            "train_loss": seeds + np.ones(11),
            "trace": (1 + seeds) * np.linspace(1, 1000 * 2.0 ** (-place), 11),
            "logdet": seeds + np.linspace(0, 10 - place, 11),
            "step": np.arange(11),
            "factor": 0.1,
            "parameters": 1234,
            "source": "digits",
        }
        results[cell] = CellResult(values, {})
    made_up = Sweep(Study("mgs-alexnet", run, tuple(results)), results)
    monkeypatch.setattr(figure, "computed", lambda name, _: made_up)
    return request.param


def test_the_claims_follow_the_numbers(sign):
    drawing = figure.figure_3(Conditions())
    fits, shrinks, det, correlated, keeps = (claim.holds for claim in drawing.claims)
    assert (fits, shrinks, det, keeps) == (sign > 0,) * 4
    assert correlated  # the smaller kernel has the higher accuracy in both
    assert set(drawing.table["regularizer"]) == set(ORDER)
    assert drawing.table["test accuracy"].max() == pytest.approx(90.1)


def test_the_correlation_and_its_interval():
    names = pd.Index(["a", "b", "c"], name="regularizer")
    x = pd.DataFrame([[1.0, 1.1], [2.0, 2.1], [3.0, 3.1]], index=names)
    assert figure._ranks(x, -x) == (-1.0, -1.0, -1.0)
    crossing = pd.DataFrame([[1.0, 3.0], [2.0, 2.5], [5.0, 2.0]], index=names)
    value, low, high = figure._ranks(x, crossing)
    means = crossing.to_numpy().mean(axis=1)
    assert value == pytest.approx(spearmanr(x.to_numpy().mean(axis=1), means).statistic)
    assert (low, high) == (-1.0, 1.0)  # each seed alone is in the order or in the contrary
