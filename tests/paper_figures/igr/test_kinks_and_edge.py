"""Kinks, the edge of stability and a transformer: claims on made-up numbers."""

from types import SimpleNamespace

import numpy as np

from analysis.scale import Conditions
from analysis.studies.igr import edge as edge_study
from analysis.studies.igr import relu as relu_study
from analysis.studies.igr import transformer as transformer_study
from paper_figures.igr import edge as igr_edge
from paper_figures.igr import relu as igr_relu
from paper_figures.igr import transformer as igr_transformer


def drawn(monkeypatch, module, draw, results):
    monkeypatch.setattr(module, "computed", lambda *_: SimpleNamespace(results=results))
    return draw(Conditions())


def relu(monkeypatch, smooth_gain=4.0, kinked_gain=1.1, differences=0.2, remainder=0.9):
    results = {}
    for name in relu_study.ACTIVATIONS:
        smooth = name in igr_relu.SMOOTH
        one = 1 / (smooth_gain if smooth else kinked_gain)
        results[relu_study.Cell(name)] = {
            "distance": np.array([[1.0, one, differences]] * 2),
            "remainder": np.full(2, 0.1 if smooth else remainder),
        }
    return drawn(monkeypatch, igr_relu, igr_relu.figure_relu, results)


def test_kinks_as_they_are_said_to_be(monkeypatch):
    drawing = relu(monkeypatch)
    assert [claim.holds for claim in drawing.claims] == [True] * 4
    assert drawing.claims[1].measured == "ReLU 1.10, max pooling 1.10"
    assert drawing.table["from step"].tolist() == [0, 80] * 4


def test_kinks_that_are_otherwise(monkeypatch):
    drawing = relu(monkeypatch, 1.9, 1.3, 0.5, 0.4)
    assert [claim.holds for claim in drawing.claims] == [False] * 4


def edge(monkeypatch, distance, sharpness, loss):
    seen = {
        "step": np.array([0, 8]),
        "distance": np.array([[0.0, d] for d in distance]),
        "sharpness": np.array([[1.0, s] for s in sharpness]),
        "loss": np.array([[1.0, e] for e in loss]),
    }
    cell = edge_study.Cell(0, 10, learning_rate=0.5)
    return drawn(monkeypatch, igr_edge, igr_edge.figure_edge, {cell: seen})


def test_the_edge(monkeypatch):
    good = edge(monkeypatch, [1.0, 0.9, 0.2, 0.05], [4.1, 6.0, 6, 4, 4], [0.5, 0.4, 0.4, 0.52, 0.5])
    assert [claim.holds for claim in good.claims] == [True] * 4
    assert good.claims[0].measured == "h times it is 2.05 at the end, against 3"
    bad = edge(monkeypatch, [1.0, 0.4, 0.2, 0.11], [4.1, 4.0, 6, 4, 4], [0.5, 0.4, 0.4, 0.6, 0.5])
    assert [claim.holds for claim in bad.claims] == [False] * 4


def transformer(monkeypatch, ends, trusted):
    results = {}
    for peak, end, ok in zip((1e-3, 1e-2), ends, trusted, strict=True):
        results[transformer_study.Cell(peak)] = {
            "step": np.array([0, 5]),
            "travelled": np.array([0.0, 1.0]),
            "correction": np.array([0.1, 0.4]),
            "remainder": np.zeros(2),
            "trusted": np.array([True, ok]),
            "loss": np.ones(2),
            "slope": np.array([1.0, 0.1]),
            "distance": np.array([[0.0, d] for d in end]),
        }
    return drawn(monkeypatch, igr_transformer, igr_transformer.figure_transformer, results)


def test_the_transformer(monkeypatch):
    good = transformer(monkeypatch, [(0.4, 0.1, 0.1), (0.4, 0.5, 0.2)], (True, False))
    assert [claim.holds for claim in good.claims] == [True] * 3
    assert good.claims[2].measured == "100%, 50%; clipped at 50%, 50% of the records"
    bad = transformer(monkeypatch, [(0.4, 0.3, 0.1), (0.4, 0.5, 0.3)], (True, True))
    assert [claim.holds for claim in bad.claims] == [False] * 3
