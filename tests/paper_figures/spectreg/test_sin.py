"""The claims of Table 7 and Figure 2 on numbers made up; the study's penalty at its own scale."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from analysis.scale import Conditions
from analysis.studies.spectreg.sin import Cell, run
from paper_figures.spectreg import sin
from paper_figures.spectreg.sin import PAPER, claims_of_errors, claims_of_flatness


def test_claims_hold_on_the_papers_own_numbers():
    means = pd.Series(PAPER)
    assert all(claim.holds for claim in claims_of_errors(means))
    falling = pd.Series(np.linspace(2.0, 1.0, len(means)), means.index)
    assert not any(claim.holds for claim in claims_of_errors(falling))


def test_claims_of_flatness():
    flat = pd.DataFrame({"slope": [3.0, 2.0, 1.0], "largest slope": [9.0, 2.5, 2.0]})
    flat.index = pd.Index([0.0, 0.1, 1.0])
    assert all(claim.holds for claim in claims_of_flatness(flat))
    assert not any(claim.holds for claim in claims_of_flatness(flat[::-1].set_index(flat.index)))


@pytest.mark.slow
def test_a_straight_line_balances_its_fit_and_its_slope(monkeypatch):
    """Full batches and no hidden layer: (n/2) mean e^2 + lambda w^2 has its minimum in closed form.

    For one output the penalty is r^2 w^2 with r ~ N(0, 1), w^2 in the mean.
    """
    cell = Cell(weights=(0.0, 50.0), steps=3000, batch_size=100, depth=0)
    result = run(cell)
    x, y = result["train_x"], result["train_y"]
    # n/2 mean (y - w x - b)^2 + lambda w^2: w = n cov / (n var + 2 lambda)
    slopes = [100 * np.cov(x, y, ddof=0)[0, 1] / (100 * x.var() + 2 * w) for w in cell.weights]

    swept = SimpleNamespace(results={cell: result})
    monkeypatch.setattr(sin, "computed", lambda name, _: swept)
    table = sin.measured(Conditions())
    assert table["weight"].tolist() == [0.0, 50.0]
    plain, damped = table["slope"] / np.abs(slopes)
    assert abs(plain - 1) < 0.01
    assert abs(damped - 1) < 0.25  # r is drawn anew every step


def test_the_part_shown_from_close_by_is_where_the_function_turns():
    x = np.linspace(-1, 1, 201)
    low, high = sin._wildest(x, np.where(np.abs(x - 0.5) < 0.1, np.sin(200 * x), 0.0))
    assert low <= 0.41
    assert high >= 0.59
    rows = [{"weight": w, "x": 0.0, "error": e} for w, e in ((0.0, 0.2), (0.1, 0.1))]
    (claim,) = sin.claims_of_part(pd.DataFrame(rows), low, high)
    assert claim.holds
    assert "1.00e-02 against 4.00e-02" in claim.measured
    turned = pd.DataFrame(rows).assign(error=lambda t: 0.3 - t["error"])
    assert not sin.claims_of_part(turned, low, high)[0].holds
