"""Claims of Table 3 and Figure 5 on made-up numbers; the study's penalty by hand."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from analysis.scale import Conditions
from analysis.studies.spectreg import combined as study
from analysis.studies.spectreg import mnist
from analysis.studies.spectreg.mnist import PAPER_DECAY, PENALTIES
from analysis.studies.spectreg.mnist import Cell as Small
from paper_figures.spectreg import combined as figure
from paper_figures.spectreg.combined import NAMES, PAPER_3, claims_of_confidence, claims_of_weights

WEIGHTS = (0.0, 1.0, 10.0, 100.0)


def draws():
    """Ten draws with the means and standard deviations printed, correlated by one half."""
    rng = np.random.default_rng(0)
    noise = np.linalg.qr(np.c_[np.ones(10), rng.normal(size=(10, 9))])[0][:, 1:] * 3
    return pd.DataFrame(
        {name: mean + deviation * (noise[:, 0] + noise[:, own]) / np.sqrt(2)
         for own, (name, (mean, deviation)) in enumerate(PAPER_3.items(), start=1)}
    )  # fmt: skip


def test_claims_of_table_3_follow_the_papers_numbers_and_their_contrary():
    printed = draws()
    assert printed["DoubleBack and CP"].mean() == pytest.approx(98.07)
    assert [claim.holds for claim in claims_of_confidence(printed)] == [True] * 4
    assert [claim.holds for claim in claims_of_confidence(200 - printed)] == [False] * 4
    assert claims_of_confidence(printed)[0].paper == "+0.40; +0.50; +0.18"


def curves(accuracy, norms):
    """Three draws that differ by a constant, for each weight decay."""
    rows = [
        {"decay": decay, "weight": weight, "draw": draw,
         "test": accuracy[decay][j] + draw + 0.01 * (draw == j),
         "weight loss": norms[decay][j] * (1 + 0.001 * draw)}
        for decay in accuracy for j, weight in enumerate(WEIGHTS) for draw in range(3)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_claims_of_figure_5_hold_where_it_is_as_described():
    accuracy = {d: (90.0, 92.0, 94.0, 12.0) for d in (0.0, 0.0005, 0.005)}
    norms = {0.0: (100.0, 90.0, 60.0, 10.0)} | {d: (50, 55, 60, 5) for d in (0.0005, 0.005)}
    claims = claims_of_weights(curves(accuracy, norms))
    assert [claim.holds for claim in claims] == [True] * 6
    assert "decay 0: at 100" in claims[1].measured


def test_claims_of_figure_5_fail_where_it_is_otherwise():
    accuracy = {d: (94.0, 93.0, 92.0, 91.0) for d in (0.0, 0.0005, 0.005)}
    norms = {0.0: (60.0, 90.0, 95.0, 99.0)} | {d: (50, 45, 40, 60) for d in (0.0005, 0.005)}
    assert not any(claim.holds for claim in claims_of_weights(curves(accuracy, norms)))
    moved = dict(zip(accuracy, ((9, 94, 95, 12), (9, 10, 94, 93), (94, 12, 11, 10)), strict=True))
    place = claims_of_weights(curves(moved, norms))[2]
    assert not place.holds


def test_weights_are_chosen_on_tuning_draws_and_others_reported(monkeypatch):
    cells = {}
    for rule in ("baseline", "SpectReg", "DoubleBack"):
        weights = (0.0,) if rule == "baseline" else (1.0, 2.0)
        for draw in range(4):
            small = Small(rule, weights, (PAPER_DECAY,), draw, tuning=draw < 2)
            shape = (1, len(weights), 3)
            validation = np.zeros(shape)
            validation[0, -1, 0], validation[0, 0, 2] = 0.5, 0.6  # without CP; with it
            test = np.arange(np.prod(shape)).reshape(shape) / 100 + draw / 1000
            found = {"validation": validation, "test": test, "weight loss": test, "source": "made"}
            cells[study.Cell(small, (0.0, 0.1, 1.0), "table-3")] = found
    asked = []

    def computed(name, conditions, only):
        asked.append([cell.figure for cell in study.study("quick").cells if only(cell)])
        return SimpleNamespace(results=cells)

    monkeypatch.setattr(figure, "computed", computed)
    drawing = figure.table_3(Conditions())
    means = drawing.table.groupby("rule")["test accuracy"].mean()
    expected = {"baseline": 0.25, "SpectReg": 3.25, "DoubleBack": 3.25}
    expected |= {f"{rule} and CP": 2.25 for rule in expected}
    assert means.to_dict() == pytest.approx(expected)
    assert set(means.index) == set(NAMES)
    assert drawing.table["draw"].unique().tolist() == [2, 3]
    assert [set(figures) for figures in asked] == [{"table-3"}]  # nothing else is computed for it


def test_the_penalty_is_the_sum_of_its_parts(monkeypatch):
    logits = np.array([[1.0, 2.0, 0.5], [0.0, -1.0, 1.0]])
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    weight = jnp.array([[3.0, 4.0]])
    layer = SimpleNamespace(weight=weight)
    at = SimpleNamespace(
        params=layer.weight,
        apply_fn=lambda w, x: x,
        x=jnp.asarray(logits),
        settings={"decay": 0.0, "weight": 7.0, "confidence": 0.5},
    )
    monkeypatch.setattr(mnist, "is_weight", lambda params: True)
    found = mnist.penalty_of(PENALTIES["baseline"], confidence=True)(at)
    np.testing.assert_allclose(found, 0.5 * (p * np.log(p)).sum(axis=1).mean(), rtol=1e-9)


def test_every_scale_has_draws_that_tune_and_draws_that_are_reported():
    for scale in ("quick", "medium", "full"):
        cells = study.study(scale).cells
        both = {(c.figure, c.small.tuning) for c in cells}
        assert both == {("5", False), ("table-3", False), ("table-3", True)}
        assert {c.small.data for c in cells} == {"digits" if scale == "quick" else "mnist"}
