"""Many optimizers beside their flows: claims and tables on made-up numbers."""

from types import SimpleNamespace

import numpy as np
import pytest

from analysis.scale import Conditions
from analysis.studies.igr import muon as muon_study
from analysis.studies.igr import zoo_runs as study
from paper_figures.igr import muon as igr_muon
from paper_figures.igr import zoo as igr_zoo


def found(zeroth, first, correction=0.1, kind="terms"):
    """What a study keeps of a run of length 2 that ends this far from the flows."""
    return {
        "orders": np.array([0, 1]),
        "distance": np.array([[0.0, zeroth], [0.0, first]]),
        "travelled": np.array([0.0, 2.0]),
        "correction": np.array([correction, correction / 2]),
        "learning_rate": 0.1,
        "kind": kind,
    }


def drawn(monkeypatch, module, draw, results):
    swept = lambda name, conditions: SimpleNamespace(results=results)
    monkeypatch.setattr(module, "computed", swept)
    return draw(Conditions())


def zoo(monkeypatch, results):
    cells = {study.Cell(name): seen for name, seen in results.items()}
    return drawn(monkeypatch, igr_zoo, igr_zoo.figure_zoo, cells)


def test_every_kind_is_held_to_the_flow_of_order_one(monkeypatch):
    drawing = zoo(
        monkeypatch,
        {
            "sgd": found(0.4, 0.01, kind="trees"),
            "adam": found(0.4, 0.004),
            "lamb": found(0.1, 0.2, kind="rule"),
            "lars": found(0.1, np.inf, kind="rule"),
        },
    )
    trees, terms, rules, within = drawing.claims
    assert trees.holds
    assert trees.measured == "1 of 1; 40 to 40 times closer"
    assert terms.holds
    assert not rules.holds
    assert rules.measured.endswith("not lamb, lars")
    assert not within.holds
    assert drawing.table["order 1"].tolist() == [0.005, 0.002, 0.1, np.inf]


@pytest.mark.parametrize(("correction", "holds"), [(0.29, False), (0.31, True)])
def test_only_what_is_trusted_is_to_be_within(monkeypatch, correction, holds):
    results = {"adam": found(0.4, 0.01), "adamw": found(0.4, 0.03, correction)}
    assert zoo(monkeypatch, results).claims[-1].holds is holds


def test_nothing_trusted_bears_nothing_out(monkeypatch):
    assert not zoo(monkeypatch, {"adam": found(0.4, 0.01, 1.0)}).claims[-1].holds


def muon(monkeypatch, corrections, first=0.01):
    cells = {
        muon_study.Cell(beta, h): found(0.1, first, size)
        for beta, sizes in corrections.items()
        for h, size in zip((0.01, 0.1), sizes, strict=True)
    }
    return drawn(monkeypatch, igr_muon, igr_muon.figure_muon, cells)


def test_where_muon_leaves_the_range(monkeypatch):
    """Half way between, on logarithms: 0.1 and 0.9 about 0.3."""
    drawing = muon(monkeypatch, {0.5: (0.1, 0.9), 0.9: (0.2, 20.0)})
    closer, shorter = drawing.claims
    assert closer.holds
    assert closer.measured == "at 2 of 2 pairs of step and memory"
    assert shorter.holds
    assert shorter.measured.startswith("h = 0.032 at beta = 0.5, h = 0.012 at beta = 0.9")


def test_a_muon_that_does_not_bear_it_out(monkeypatch):
    drawing = muon(monkeypatch, {0.5: (0.1, 0.9), 0.9: (0.1, 0.2)}, first=0.2)
    assert [claim.holds for claim in drawing.claims] == [False, False]
    assert "h = inf at beta = 0.9" in drawing.claims[1].measured


def test_every_optimizer_that_is_read_is_run():
    assert [*study.LEARNING_RATES] == [*study.OPTIMIZERS]


def test_what_is_smoothed_has_a_star(monkeypatch):
    drawing = zoo(monkeypatch, {"sgd": found(0.4, 0.01), "lion": found(0.4, 0.01)})
    (axes,) = drawing.picture.axes
    assert [t.get_text() for t in axes.get_yticklabels()] == ["sgd, $h = 0.1$", "lion*, $h = 0.1$"]
