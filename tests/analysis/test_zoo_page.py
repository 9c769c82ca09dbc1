"""The page of all optimizers is the one that its kept results make."""

import numpy as np
import pytest

from analysis import zoo_page
from analysis.studies import study
from analysis.studies.igr.zoo import OPTIMIZERS
from analysis.sweep import committed


@pytest.fixture(scope="module")
def found():
    swept = committed(study("igr-zoo", "quick"), zoo_page.RESULTS)
    return {cell.optimizer: swept[cell].values for cell in swept.study.cells}


def test_every_row_is_certified(found):
    assert set(found) == set(OPTIMIZERS)
    for name, values in found.items():
        np.testing.assert_allclose(values["slopes"], (2, 3), atol=0.1, err_msg=name)


def test_one_row_an_alias():
    """All of them, with as many cells as there are columns, none of them empty."""
    page = zoo_page.PAGE.read_text(encoding="utf-8")
    head, _, *rows = [line for line in page.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert {len(row) for row in cells} == {head.count("|") - 1}
    assert all(all(row) for row in cells)
    names = [row[0].removesuffix("\\*") for row in cells]
    assert names == [*OPTIMIZERS, *zoo_page.REFUSED]
    refused = {row[0]: row[-1] for row in cells if row[1] == "refused"}
    assert set(refused) == set(zoo_page.REFUSED)
    assert all(len(why) > 30 for why in refused.values())
    anchors = {part.partition(")")[0] for row in rows for part in row.split("](#")[1:]}
    titles = {line[4:] for line in page.splitlines() if line.startswith("### ")}
    assert anchors <= {t.replace(" ", "-").replace(",", "").replace(".", "") for t in titles}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*seed.*is deprecated")
def test_the_page_is_that_of_the_results(found):
    assert zoo_page.PAGE.read_text(encoding="utf-8") == zoo_page.page(found)
