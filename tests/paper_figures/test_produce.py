"""What a figure leaves on disk, and what happens to the others when one fails."""

import io
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from analysis.scale import Conditions
from paper_figures.figure import Claim, Figure
from paper_figures.produce import claims_table, produce
from tests.paper_figures import fakes

LINE = Figure("fake/line", "Fakes", "a line", "tests.paper_figures.fakes:draw_line", 1)
ERROR = Figure("fake/error", "Fakes", "an error", "tests.paper_figures.fakes:draw_error", 1)
HALF = Figure(
    "fake/half", "Fakes", "half a drawing", "tests.paper_figures.fakes:draw_unwritable_table", 1
)


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=150)


def printed(console):
    return console.file.getvalue()


def test_a_figure_becomes_four_files(tmp_path, console):
    [outcome] = produce([LINE], tmp_path / "out", Conditions(), console)
    names = [str(path.relative_to(tmp_path / "out")) for path in outcome.files]
    assert names == [f"fake/line{end}" for end in (".png", ".pdf", ".csv", ".claims.csv")]
    assert outcome.files[0].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert outcome.files[1].read_bytes()[:5] == b"%PDF-"
    assert outcome.error is None
    assert "1 of 2 claims hold" in printed(console)


def test_the_numbers_and_claims_can_be_read_back(tmp_path, console):
    produce([LINE], tmp_path, Conditions(), console)
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "fake/line.csv"),
        fakes.draw_line(Conditions()).table,
        check_exact=True,
    )
    claims = pd.read_csv(tmp_path / "fake/line.claims.csv", keep_default_na=False)
    assert list(claims.columns) == ["claim", "measured", "paper", "holds", "note"]
    assert list(claims["holds"]) == [True, False]
    assert list(claims["note"]) == ["", "It is a parabola."]
    assert list(claims["paper"]) == ["4", ""]


def test_a_failing_figure_is_reported_and_stops_no_other(tmp_path, console):
    outcomes = produce([ERROR, HALF, LINE], tmp_path, Conditions(), console)
    assert [outcome.error is None for outcome in outcomes] == [False, False, True]
    assert "RuntimeError: no such network" in outcomes[0].error
    assert "failed: RuntimeError: no such network" in printed(console)
    assert not (tmp_path / "fake/error.png").exists()


def test_no_part_file_is_left_behind(tmp_path, console):
    produce([HALF, LINE], tmp_path, Conditions(), console)
    assert [path for path in tmp_path.rglob("*") if path.name.endswith(".part")] == []


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, console):
    produce([LINE], tmp_path, Conditions(), console)
    old = (tmp_path / "fake/line.csv").read_bytes()
    broken = Figure(
        "fake/line", "Fakes", "a line", "tests.paper_figures.fakes:draw_unwritable_table", 1
    )
    produce([broken], tmp_path, Conditions(), console)
    assert (tmp_path / "fake/line.csv").read_bytes() == old


def test_the_same_numbers_give_the_same_bytes(tmp_path, console):
    """In two processes: what is random in one process is seeded anew in the other."""
    script = (
        "import sys; from pathlib import Path; from rich.console import Console;"
        "from analysis.scale import Conditions;"
        "from paper_figures.figure import Figure; from paper_figures.produce import produce;"
        f"produce([{LINE}], Path(sys.argv[1]), Conditions(), Console(quiet=True))"
    )
    produce([LINE], tmp_path / "here", Conditions(), console)
    command = [sys.executable, "-c", script, str(tmp_path / "there")]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2])
    for end in (".png", ".pdf", ".csv", ".claims.csv"):
        here, there = (tmp_path / side / f"fake/line{end}" for side in ("here", "there"))
        assert here.read_bytes() == there.read_bytes(), end


def test_the_claims_table_shows_what_does_not_hold(tmp_path, console):
    console.print(claims_table(produce([LINE], tmp_path, Conditions(), console)))
    assert "NO. It is a parabola." in printed(console)


def test_holds_must_be_computed():
    with pytest.raises(TypeError, match="holds must be True or False, not 'yes'"):
        Claim("a claim", "1", "yes")  # type: ignore[arg-type]


def test_the_user_s_own_matplotlib_settings_are_kept(tmp_path, console):
    import matplotlib

    with matplotlib.rc_context({"font.size": 31.0}):
        produce([LINE], tmp_path, Conditions(), console)
        assert matplotlib.rcParams["font.size"] == 31.0


def test_the_progress_bar_says_the_time_left(tmp_path):
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    slow = Figure("fake/slow", "Fakes", "a line", "tests.paper_figures.fakes:draw_line", 125)
    produce([slow], tmp_path, Conditions(), console)
    assert "about 2:05 left" in printed(console)
    assert "about 0:00 left" in printed(console)
