"""Claims of Tables 2 and A.2 on made-up losses; the faces and their units."""

import numpy as np
import pytest

from analysis.data import drawn_keypoints
from analysis.scale import Conditions
from analysis.studies.mgs import keypoints
from analysis.sweep import CellResult, Study, Sweep
from paper_figures.mgs import keypoints as figure


@pytest.fixture(params=[1, -1], ids=["as the paper says", "the contrary"])
def sign(request, monkeypatch):
    """LeNet-5: dropout and MGS are good, FCN: MGS alone; or they are the bad ones."""
    results = {}
    for cell in keypoints.study("quick").cells:
        is_good = cell.method in (("dropout", "MGS") if cell.network == "LeNet-5" else ("MGS",))
        final = (15.0 if is_good else 90.0) if request.param > 0 else (90.0 if is_good else 15.0)
        draws = 1 + np.arange(cell.draws)[None, :, None] / 100
        rise = 1.01 if (cell.method == "MGS") == (request.param > 0) else 2.0
        path = np.array([3.0, 1 / rise, *[1.0] * 5])
        losses = final * draws * path * np.ones((len(cell.noises), 1, 1))
        results[cell] = CellResult({"test_loss": losses, "factor": 0.1, "source": "drawn"}, {})

    def computed(name, _, only):
        kept = {cell: found for cell, found in results.items() if only(cell)}
        return Sweep(Study(name, keypoints.run, tuple(kept)), kept)

    monkeypatch.setattr(figure, "computed", computed)
    return request.param


@pytest.mark.parametrize("draw", [figure.table_2, figure.table_a2])
def test_the_claims_follow_the_numbers(sign, draw):
    drawing = draw(Conditions())
    assert [claim.holds for claim in drawing.claims] == [sign > 0] * 2
    assert drawing.table["final test loss"].max() == pytest.approx(90.9)
    assert set(drawing.table["regularizer"]) == set(figure.LOOKS)


def test_targets_are_in_halves_of_an_image_and_no_face_is_in_two_parts(monkeypatch):
    monkeypatch.delenv("IGR_DATA", raising=False)
    keypoints.faces.cache_clear()
    pool, held_out, test, source = keypoints.faces(60, 16)
    assert (len(pool), len(held_out), len(test)) == (15, 3, 42)
    drawn = drawn_keypoints(60, side=16)
    np.testing.assert_allclose(test.y, (drawn.test.y * 6 - 48) / 48, rtol=1e-5, atol=1e-6)
    assert "stand-in" in source
    together = np.concatenate([part.y for part in (pool, held_out, test)])
    assert len(np.unique(together, axis=0)) == 60
