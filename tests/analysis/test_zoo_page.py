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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*seed.*is deprecated")
def test_the_page_is_that_of_the_results(found):
    assert zoo_page.PAGE.read_text(encoding="utf-8") == zoo_page.page(found)
