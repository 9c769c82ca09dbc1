"""Coherence along training: a tiny study, and claims on results made up so that they are known."""

import numpy as np
import pytest

from analysis.scale import Conditions
from analysis.studies.coherence.training import Cell, run, study
from analysis.sweep import CellResult, Study, Sweep
from paper_figures.coherence import training as figure


def made_up(cell, falls):
    """Five samples; coherence falls (or rises) with the part of random labels."""
    helped = 1 + 10 * (1 - cell.random if falls else cell.random)
    each = np.ones((1, len(cell.seeds), 5))
    fitted = each * [0.1, 0.2, 0.6, 0.9, 1.0]
    shape = [1.0, 1.0, 1.0, 100.0, 0.1]  # all but the first three are late
    return {
        "helped": helped * each * shape,
        "from_batches": helped * each * shape * (1.05 if falls else 1.3),
        "train_accuracy": fitted,
        "test_accuracy": fitted * (1 - 0.9 * cell.random),
        "train_loss": 1 - fitted,
        "step": np.array([[0, 1, 10, 100, 1000]]),
        "source": "made up",
    }


@pytest.mark.parametrize("falls", [True, False])
def test_the_claims_follow_the_numbers(monkeypatch, falls):
    cells = study("quick").cells
    results = {cell: CellResult(made_up(cell, falls)) for cell in cells}
    monkeypatch.setattr(figure, "computed", lambda name, _: Sweep(Study(name, run, cells), results))
    drawing = figure.figure_training(Conditions())
    assert [claim.holds for claim in drawing.claims] == [falls] * 5
    assert len(drawing.table) == 5 * 10 * 5
    early = drawing.claims[1].measured
    assert ("11.0 (11.0 to 11.0) on real, 1.0" in early) == falls  # nothing late is in it


@pytest.mark.slow
def test_a_batch_of_one_example_estimates_exactly():
    cell = Cell("digits", 0.5, 20, 3, 1, steps=3, samples=2, seeds=(0,), batch_size=1)
    found = run(cell)
    assert found["step"].tolist() == [[0, 1, 3]]
    np.testing.assert_allclose(found["from_batches"], found["helped"], rtol=1e-5)
    assert found["source"].endswith("50% of the labels random")
