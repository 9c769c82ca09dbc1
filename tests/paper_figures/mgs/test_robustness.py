"""Claims of Figure 4 on made-up runs; what is changed is changed, and the factor stays."""

import numpy as np
import pandas as pd
import pytest

from analysis.scale import Conditions
from analysis.studies.mgs import robustness
from analysis.sweep import CellResult, Study, Sweep
from paper_figures.mgs import robustness as figure


@pytest.fixture(params=[1, -1], ids=["as the paper says", "the contrary"])
def sign(request, monkeypatch):
    """MGS is ahead and steady but for the learning rate; or behind, and steady there alone."""
    results = {}
    for cell in robustness.study("quick").cells:
        best = cell.start.method == "MGS"
        moved = (cell.changed == "learning_rate") == (request.param > 0)
        spread = (0.1 if moved else 0.001) if best else 0.05
        steps = spread * np.arange(len(cell.values) * cell.start.draws)
        middle = 0.5 + request.param * 0.3 * best
        values = {"accuracy": (middle + steps - steps.mean()).reshape(-1, cell.start.draws),
                  "factor": 0.1, "source": "digits"}  # fmt: skip
        results[cell] = CellResult(values, {})
    made_up = Sweep(Study("mgs-robustness", robustness.run, tuple(results)), results)
    monkeypatch.setattr(figure, "computed", lambda name, _: made_up)
    return request.param


def test_the_claims_follow_the_numbers(sign):
    drawing = figure.figure_4(Conditions())
    assert [claim.holds for claim in drawing.claims] == [sign > 0] * 3
    assert set(drawing.table["changed"]) == set(robustness.CHANGES)


@pytest.mark.parametrize("scale", ["quick", "medium", "full"])
def test_each_thing_is_changed_to_less_and_to_more(scale):
    for cell in robustness.study(scale).cells:
        usual = getattr(cell.start, cell.changed)
        usual = usual[0] if cell.changed == "noises" else usual
        assert min(cell.values) < usual < max(cell.values)


def test_quartiles_are_those_of_numpy(sign):
    table = figure.measured(Conditions())[0]
    rates = table.query("changed == 'learning_rate' and regularizer == 'MGS'")
    low, middle, high = np.percentile(rates["final test accuracy"], [25, 50, 75])
    medians, spread = figure._quartiles(figure._runs(table))
    assert medians["learning_rate"]["MGS"] == pytest.approx(middle)
    assert spread["learning_rate"]["MGS"] == pytest.approx(high - low)


def test_a_lead_that_one_draw_makes_is_none():
    """MGS is ahead in the median over the draws, and behind in every draw but one."""
    rows = [
        {"changed": what, "regularizer": method, "value": value, "draw": draw,
         "final test accuracy": 50.0 + 30 * (method == "MGS" and draw == 0) - (method == "MGS")}
        for what in figure.CHANGES for method in figure.LOOKS for value in (1, 2)
        for draw in range(2)
    ]  # fmt: skip
    ahead = figure.claims(pd.DataFrame(rows))[0]
    assert "training size, label noise, batch size, learning rate, epochs" in ahead.measured
    assert not ahead.holds
