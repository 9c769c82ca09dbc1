"""Runs beside their flows: the network by numpy and scipy; claims and table on made-up numbers."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from scipy.special import log_softmax

from analysis.data import Classification
from analysis.models.tanh_network import HIDDEN, cross_entropy, tanh_network
from analysis.scale import Conditions
from analysis.studies.igr import follow as study
from analysis.studies.igr import optimizers as optimizers_study
from paper_figures.igr import follow, optimizers


@pytest.mark.slow
def test_loss_and_size():
    rng = np.random.default_rng(0)
    data = Classification(rng.uniform(size=(7, 5)), np.array([0, 2, 1, 0, 2, 2, 1]), 3)
    params = tanh_network(data, jax.random.key(1))
    assert (
        sum(leaf.size for leaf in jax.tree.leaves(params)) == 5 * HIDDEN + HIDDEN + HIDDEN * 3 + 3
    )

    hidden, output = params["hidden"], params["output"]
    units = np.tanh(data.x @ hidden["weights"] + hidden["bias"])
    logits = units @ output["weights"] + output["bias"]
    expected = -log_softmax(logits, axis=1)[np.arange(7), data.y].mean()
    np.testing.assert_allclose(cross_entropy(data)(params), expected, rtol=1e-12)


def found(*last, travelled=2.0):
    """What a study keeps of a run whose flows of order 0, 1, ... end this far off."""
    along = np.array([0.0, 0.5, 1.0])
    return {
        "orders": np.arange(len(last)),
        "distance": np.stack([np.array([0.0, end / 2, end]) for end in last]),
        "at_rounding": np.zeros((len(last), 3), bool),
        "travelled": travelled * along,
        "step": np.array([0, 10, 20]),
        "time": 0.1 * np.array([0, 10, 20]),
        "loss": np.array([3.0, 2.0, 1.0]),
        "h_sharpness": np.array([0.1, 0.3, 0.2]),
        "correction": np.full(3, 0.1),
        "stability_limit": np.array(2.0),
        "trusted": np.ones(3, bool),
        "learning_rate": 0.1,
    }


def swept(results):
    return lambda name, conditions, only=lambda cell: True: SimpleNamespace(
        results={cell: result for cell, result in results.items() if only(cell)}
    )


def test_each_order_is_held_against_the_one_below(monkeypatch):
    results = {study.Cell(0.05): found(0.4, 0.1, 0.01), study.Cell(0.2): found(0.4, 0.1, 0.2)}
    monkeypatch.setattr(follow, "computed", swept(results))
    drawing = follow.figure_follow(Conditions())
    assert [claim.holds for claim in drawing.claims] == [True, True, True, False]
    assert "10.0 times closer at the end (1.00e-02 against 1.00e-01)" in drawing.claims[1].measured
    ends = drawing.table[drawing.table["step"] == 20]
    assert ends["distance to order 2"].tolist() == [0.01, 0.2]


@pytest.mark.parametrize(("last", "holds"), [((0.05, 0.003), True), ((0.05, 0.005), False)])
def test_adam_by_its_share_of_the_way(monkeypatch, last, holds):
    results = {
        optimizers_study.Cell("sgd"): found(0.1),
        optimizers_study.Cell("adam"): found(*last),
        optimizers_study.Cell(optimizers_study.ELIMINATED): found(3.0, np.inf),
    }
    monkeypatch.setattr(optimizers, "computed", swept(results))
    kept, eliminated = optimizers.figure_adam_kept(Conditions()).claims
    assert kept.holds is holds
    assert kept.measured.startswith("2.50% and 0.150%" if holds else "2.50% and 0.250%")
    assert eliminated.holds
    assert eliminated.measured.startswith("order 0: 1.50 of the way at the end; order 1: out of")


def test_all_optimizers_but_the_eliminated_are_drawn(monkeypatch):
    names = list(optimizers_study.OPTIMIZERS)
    results = {optimizers_study.Cell(name): found(0.1, 0.01) for name in names}
    monkeypatch.setattr(optimizers, "computed", swept(results))
    drawing = optimizers.figure_optimizers(Conditions())
    assert drawing.table["optimizer"].unique().tolist() == [
        name for name in names if name != optimizers.ELIMINATED
    ]
    assert len(drawing.claims) == 6
