"""Maps over noise and size, and training curves of LeNet-5, on numbers made up."""

import numpy as np
import pytest

from analysis.scale import Conditions
from analysis.studies.mgs.label_noise import run
from analysis.studies.mgs.noise_and_size import study
from analysis.sweep import CellResult, Study, Sweep
from paper_figures.catalogue import FIGURES
from paper_figures.mgs import noise_and_size as figure
from paper_figures.mgs.label_noise import ON_DIGITS

METHODS = ("none", "weight", "dropout", "loss gradient", "MGS")


def accuracy(cell, sign):
    """Of axes noise, draw, sample: better with size, worse with noise, MGS best; or contrary."""
    size, best = np.log2(cell.examples / 96) / 10, 0.1 * (cell.method == "MGS")
    levels = np.array(cell.noises)[:, None, None] / 4
    draws = np.arange(cell.draws)[None, :, None] / 200  # the same for all: differences are exact
    ends = 0.5 + sign * (size + best - levels) + draws
    return np.concatenate([np.full((*ends.shape[:2], 3), 0.1), np.repeat(ends, 5, axis=-1)], -1)


@pytest.fixture(params=[1, -1], ids=["as the paper says", "the contrary"])
def sign(request, monkeypatch):
    cells = study("quick").cells
    results = {
        cell: CellResult({"test_accuracy": accuracy(cell, request.param), "factor": 0.1}, {})
        for cell in cells
    }
    made_up = Sweep(Study("mgs-noise-and-size", run, cells), results)
    monkeypatch.setattr(figure, "computed", lambda name, _: made_up)
    return request.param


@pytest.mark.parametrize("method", METHODS)
def test_the_claims_follow_the_numbers(sign, method):
    drawing = figure.figure_map(Conditions(), "blurred mnist", method)
    assert [claim.holds for claim in drawing.claims] == [sign > 0] * (3 if method == "MGS" else 2)
    assert set(drawing.table["regularizer"]) == {method}
    dense = figure.figure_map(Conditions(), "blurred mnist, FCN", method)
    titles = [one.picture.axes[0].get_title() for one in (drawing, dense)]
    assert titles[0].startswith(
        "LeNet-5 with filters of 3 by 3 on digits,\nfor the paper's LeNet-5"
    )
    assert titles[1].startswith("MLP on digits,\nfor the paper's FCN on blurred MNIST")
    assert [claim.holds for claim in dense.claims] == [claim.holds for claim in drawing.claims]
    assert len(drawing.table) == 3 * 4 * 3
    row = drawing.table.query("examples == 288 and noise == 0.6 and draw == 1")
    best = 0.1 * (method == "MGS")
    expected = 100 * (0.5 + sign * (np.log2(3) / 10 + best - 0.15) + 1 / 200)
    assert row["final test accuracy"].item() == pytest.approx(expected)


def test_a_lead_within_two_standard_errors_is_none():
    rng = np.random.default_rng(0)
    bench = {method: 50 + rng.normal(size=(3, 4, 3)) for method in METHODS}
    assert not figure._ahead(bench).holds
    ahead = figure._ahead(bench | {"MGS": bench["none"].max() + 10 + rng.random((3, 4, 3))})
    assert ahead.holds


def test_each_regularizer_and_network_has_its_figure():
    mine = [f for f in FIGURES if f.source == "paper_figures.mgs.noise_and_size:figure_map"]
    assert [figure.name for figure in mine] == [f"mgs/A.{n}" for n in range(4, 14)]
    assert [figure.arguments[1] for figure in mine] == [*METHODS, *METHODS]
    cells = {scale: study(scale).cells for scale in ("quick", "medium", "full")}
    for figure_of in mine:
        for scale, its in cells.items():
            data = figure_of.arguments[0]
            data = ON_DIGITS[data] if scale == "quick" else data
            sizes = [
                c.examples for c in its if (c.data, c.method) == (data, figure_of.arguments[1])
            ]
            assert len(sizes) == {"quick": 3, "medium": 2, "full": 4}[scale]
    assert {c.examples for c in cells["full"]} == {250, 1000, 3000, 9000}


def test_cells_of_one_regularizer_share_what_was_tuned():
    from dataclasses import replace

    cells = [cell for cell in study("quick").cells if cell.method == "MGS"]
    assert len(cells) == 6
    assert len({replace(cell, noises=(), examples=0, samples=100) for cell in cells}) == 2
