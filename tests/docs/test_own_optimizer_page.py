"""The sessions on the page about one's own optimizer print what they say."""

import doctest
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "own_optimizer.md"


@pytest.mark.slow
def test_the_page_says_what_happens():
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    found = doctest.testfile(
        str(PAGE), module_relative=False, optionflags=options, encoding="utf-8"
    )
    assert found.attempted > 10
    assert found.failed == 0
