"""Robust means against wrong labels, on results made up so that what they must say is known."""

import numpy as np
import pytest

from analysis.scale import Conditions
from analysis.studies.coherence.robust import run, study
from analysis.sweep import CellResult, Study, Sweep
from paper_figures.coherence import robust as figure


def made_up(cell, helps):
    """Three samples; a rule in place of SGD keeps what it has, or fits and forgets all the more."""
    plain = cell.level == (0 if cell.rule == "winsorized" else 1)
    robust = 0.0 if plain else 0.3 + 0.001 * cell.level
    sign = -1 if helps else 1
    each = np.ones((1, len(cell.seeds), 3))
    end = 0.6 + sign * robust * (1.0 if cell.rule == "winsorized" else 0.5)
    end = end + (0.3 if not helps and not plain and cell.rule == "winsorized" else 0)
    return {
        "train_accuracy": each * [0.1, 0.3, end],
        "test_accuracy": each * [0.1, 0.9, 0.5 - sign * robust],
        "source": "made up",
    }


@pytest.mark.parametrize("helps", [True, False])
def test_the_claims_follow_the_numbers(monkeypatch, helps):
    cells = study("quick").cells
    results = {cell: CellResult(made_up(cell, helps)) for cell in cells}
    monkeypatch.setattr(figure, "computed", lambda name, _: Sweep(Study(name, run, cells), results))
    drawing = figure.figure_robust(Conditions())
    assert [claim.holds for claim in drawing.claims] == [helps] * 9
    assert len(drawing.table) == sum(len(cell.seeds) for cell in cells)
    assert "0.400 (SGD)" in drawing.claims[2].measured  # 0.9 less 0.5
