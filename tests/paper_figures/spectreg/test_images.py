"""Claims of Tables 4 and 5 on the paper's numbers; the images that stand in."""

import numpy as np
import pandas as pd
import pytest

from analysis.studies.spectreg import images as spectreg_images
from paper_figures.spectreg.images import PAPER_4, PAPER_5, claims_of_cifar10, claims_of_tiny


@pytest.mark.parametrize("sign", [1, -1])
def test_claims_follow_the_papers_numbers_and_their_contrary(sign):
    small = pd.DataFrame(
        {"rule": rule, "draw": draw, "top 1": sign * mean + draw}
        for rule, (mean, _) in PAPER_4.items() for draw in range(3)
    )  # fmt: skip
    assert [claim.holds for claim in claims_of_cifar10(small)] == [sign > 0] * 2
    tiny = pd.DataFrame(
        {"rule": rule, "draw": draw} | {w: sign * PAPER_5[w][rule][0] + draw for w in PAPER_5}
        for rule in ("baseline", "SpectReg") for draw in range(3)
    )  # fmt: skip
    assert [claim.holds for claim in claims_of_tiny(tiny)] == [sign > 0] * 2
    assert claims_of_tiny(tiny)[0].paper == "+6.14"


def test_textures_stand_in_where_there_are_no_files(monkeypatch):
    monkeypatch.delenv("IGR_DATA", raising=False)
    cell = spectreg_images.Cell("tiny", "baseline", (0.0,), 0, False, per_class=5, classes=7,
                                held_out=20)  # fmt: skip
    data = spectreg_images.images(cell)
    assert "stand-in" in data.source
    np.testing.assert_array_equal(np.bincount(data.train.y), [5] * 7)
    assert len(data.test) == 60
    np.testing.assert_allclose(data.train.x.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(data.train.x.std(0), 1, rtol=1e-4)
