"""Claims of Figure 4 on made-up runs; what is changed is changed, and the factor stays."""

import numpy as np
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
