"""Every tutorial runs from top to bottom, with warnings as errors."""

import runpy
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest

TUTORIALS = sorted((Path(__file__).parents[2] / "docs" / "tutorials").glob("*.py"))


@pytest.fixture(autouse=True)
def no_windows():
    before = matplotlib.get_backend()
    matplotlib.use("Agg")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plt, "show", lambda: None)  # Agg cannot show, and says so with a warning
        yield
    plt.close("all")
    matplotlib.use(before)


def test_there_are_tutorials():
    assert TUTORIALS


@pytest.mark.slow
@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)
def test_tutorial_runs(tutorial):
    runpy.run_path(str(tutorial), run_name="__main__")


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)
def test_tutorial_is_in_the_site(tutorial):
    site = Path(__file__).parents[2] / "mkdocs.yml"
    assert f"tutorials/{tutorial.name}" in site.read_text()
