"""The example of section 5.1 against what it comes to by hand.

By symmetry the real data have w_1 = ... = w_4 = a and w_6 = b with the residual r = 1 - a - b, so
that dL/da = -r / 4 and dL/db = -r: r shrinks by 1 - 5 h / 4 a step and b ends at 4/5.
"""

from types import SimpleNamespace

import numpy as np
import pytest

from analysis.scale import Conditions
from analysis.studies.coherence.real_or_random import Cell, run, study
from paper_figures.coherence import real_or_random as figure
from paper_figures.coherence.real_or_random import claims


@pytest.mark.slow
def test_both_sets_and_their_claims(monkeypatch):
    cells = study("quick").cells
    runs = {cell.data: run(cell) for cell in cells}
    real, random = runs["real"], runs["random"]
    cell = Cell("real")
    steps = np.arange(cell.steps + 1)
    left = (1 - 5 * cell.learning_rate / 4) ** steps
    np.testing.assert_allclose(real["weights"][:, 5], 0.8 * (1 - left), atol=1e-12)
    np.testing.assert_allclose(real["weights"][:, 0], 0.2 * (1 - left), atol=1e-12)
    np.testing.assert_allclose(real["test"], (1 - real["weights"][:, 5]) ** 2 / 2, atol=1e-12)
    np.testing.assert_allclose(real["helped"][0], 20 / 8)  # (4 * 2 + 12) of 4 * 2
    left = (1 - cell.learning_rate / 4) ** steps
    np.testing.assert_allclose(random["train"], left**2 / 2)
    np.testing.assert_allclose(random["test"], 0.5)
    assert all(claim.holds for claim in claims(runs))
    exchanged = claims({"real": random, "random": real})
    assert not any(claim.holds for claim in exchanged)

    results = {cell: SimpleNamespace(values=runs[cell.data]) for cell in cells}
    monkeypatch.setattr(figure, "computed", lambda name, _: SimpleNamespace(results=results))
    table = figure.figure_5_1(Conditions()).table
    np.testing.assert_array_equal(table.loc[table["data"] == "real", "w6"], real["weights"][:, 5])
    assert table["step"].max() == cell.steps
