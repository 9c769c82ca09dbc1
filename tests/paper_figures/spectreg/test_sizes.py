"""Claims of Figure 1 on made-up accuracies."""

import pandas as pd
import pytest

from analysis.studies.spectreg.sizes import study
from paper_figures.spectreg.sizes import claims

# Points over the baseline at a small, a middle and a large set, as the text describes them.
GAINS = {"baseline": (0.0, 0.0, 0.0), "CP": (1.0, 0.8, 0.5), "JacReg": (0.5, 0.4, 0.2),
         "SpectReg": (2.0, 1.5, 0.5), "DoubleBack": (3.0, 2.0, 1.0)}  # fmt: skip


@pytest.mark.parametrize("sign", [1, -1])
def test_claims_follow_the_numbers(sign):
    rows = [
        {"rule": rule, "examples": size, "draw": draw, "test accuracy": 80 + sign * gain + draw}
        for rule, gains in GAINS.items() for size, gain in zip((50, 100, 400), gains, strict=True)
        for draw in range(3)
    ]  # fmt: skip
    assert [claim.holds for claim in claims(pd.DataFrame(rows))] == [sign > 0] * 5


def test_every_size_has_every_rule_and_weights_are_tuned_apart():
    cells = study("quick").cells
    sizes = {cell.small.per_class for cell in cells}
    for size in sizes:
        here = [cell for cell in cells if cell.small.per_class == size]
        assert {cell.small.rule for cell in here} == set(GAINS) - {"CP"}
        assert {cell.small.tuning for cell in here} == {True, False}
    assert any(max(cell.confidences) > 0 for cell in cells)
