"""Claims of Figures A.7 and A.8 on made-up runs, and R by hand on a network of one block."""

import numpy as np
import pytest

from analysis.scale import Conditions
from analysis.studies.igr.resnet_rates import Cell, run
from analysis.sweep import CellResult, Study, Sweep
from paper_figures.igr import resnet_rates as figure

RATES, SEEDS, SAMPLES = (0.01, 0.1, 0.2), (0, 1, 2), 4


@pytest.fixture(params=[1, -1], ids=["as the paper says", "the contrary"])
def sign(request, monkeypatch):
    """With the rate accuracy grows and R falls; or the contrary, and nothing is fitted."""
    cell = Cell("digits", RATES, SEEDS)
    rank = request.param * np.arange(3.0)[:, None, None] + np.arange(3.0)[None, :, None] / 100
    along = np.arange(SAMPLES) / 100
    values = {
        "test_accuracy": 0.5 + rank / 20 + along,
        "train_accuracy": np.full((3, 3, SAMPLES), 1.0 if request.param > 0 else 0.9),
        "train_loss": np.exp(-rank - along),
        "R": 1e-4 * np.exp(-rank + along),
        "norm": 5 + rank + along,
        "step": np.tile(np.arange(SAMPLES) * 10, (3, 1)),
        "parameters": 100,
        "source": "digits, made up",
    }
    made_up = Sweep(Study("igr-resnet-rates", run, (cell,)), {cell: CellResult(values, {})})
    monkeypatch.setattr(figure, "computed", lambda name, _: made_up)
    return request.param


def test_the_claims_follow_the_numbers(sign):
    on_the_way, at_the_best = figure.figure_a7(Conditions()), figure.figure_a8(Conditions())
    assert [claim.holds for claim in on_the_way.claims] == [sign > 0] * 4
    # Accuracy and R go against each other either way.
    assert [claim.holds for claim in at_the_best.claims] == [sign > 0, sign > 0, True]
    first = on_the_way.table.iloc[0]
    assert first["slope"] == pytest.approx(np.sqrt(100 * first["R"]))
    assert len(at_the_best.table) == len(RATES) * len(SEEDS)
    assert (at_the_best.table["step"] == 30).all()
