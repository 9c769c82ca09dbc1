"""What a figure leaves on disk, and what happens to the others when one fails."""

import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from rich.progress import Progress

from analysis import progress
from analysis.scale import Conditions
from paper_figures.draw import Outcome
from paper_figures.figure import Claim, Figure
from paper_figures.produce import Shown, claims_table, produce
from paper_figures.side_by_side import next_of
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


@pytest.mark.parametrize(
    ("scale", "cost", "left"),
    [
        ("quick", 980, r"about 16:[12]\d left"),
        ("quick", 0.01, r"0:0\d so far"),  # it takes longer than it is said to
        ("medium", 980, r"0:0\d so far"),  # which is the cost at quick
    ],
)
def test_a_log_has_a_line_with_the_time_left(scale, cost, left, tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "FIRST", 0.3)
    log = Console(file=io.StringIO(), force_terminal=False, width=80)
    slow = Figure("fake/slow", "Fakes", "", "tests.paper_figures.fakes:draw_slowly", cost)
    produce([slow], tmp_path, Conditions(scale), log)
    first, second = printed(log).splitlines()
    assert re.fullmatch(rf"\d\d:\d\d:\d\d  fake/slow  {left}", first)
    assert second.startswith("fake/slow")


def test_a_line_names_the_study_also_where_one_process_draws(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "FIRST", 0.3)
    log = Console(file=io.StringIO(), force_terminal=False, width=80)
    slow = Figure("fake/slow", "Fakes", "", "tests.paper_figures.fakes:draw_told_and_slowly", 980)
    produce([slow], tmp_path, Conditions(), log)
    assert "  fake/slow (a-study 1/2)  about 16:" in printed(log)


@pytest.mark.slow
def test_side_by_side_the_files_are_the_same_and_one_that_dies_stops_no_other(tmp_path, console):
    dying = Figure("fake/dying", "Fakes", "", "tests.paper_figures.fakes:draw_dying", 1)
    told = Figure("fake/told", "Fakes", "", "tests.paper_figures.fakes:draw_told", 1)
    figures = [ERROR, told, dying, LINE]
    outcomes = produce(figures, tmp_path / "many", Conditions(), console, processes=2)
    assert [outcome.figure for outcome in outcomes] == figures
    raised, drawn, died, line = outcomes
    assert "RuntimeError: no such network" in (raised.error or "")
    assert died.error == "Its process died: out of memory, or killed."
    assert drawn.error is None
    assert pd.read_csv(tmp_path / "many/fake/told.csv")["process"][0] != os.getpid()
    produce([LINE], tmp_path / "one", Conditions(), console)
    for one, many in zip(["line.png", "line.pdf", "line.csv"], line.files, strict=False):
        assert (tmp_path / "one/fake" / one).read_bytes() == many.read_bytes()


def test_figures_of_one_module_or_paper_are_kept_apart_where_others_wait():
    def figure(name, paper, module, cost=1):
        return Figure(name, paper, "", f"{module}:draw", cost)

    running = figure("a/1", "A", "a.first")
    same_module, same_paper = figure("a/2", "A", "a.first"), figure("a/3", "A", "a.second")
    other = figure("b/1", "B", "b.first")
    assert next_of([same_module, same_paper, other], [running]) is other
    assert next_of([same_module, same_paper], [running]) is same_paper
    assert next_of([same_module, other], []) is same_module
    long = figure("b/2", "B", "b.second", 9)  # begun last, it would be waited for alone
    assert next_of([same_module, other, long], [running]) is long


def test_the_bar_names_what_is_drawn_and_how_far_its_study_is():
    shown = Console(file=io.StringIO(), width=100, force_terminal=True)
    with Progress(console=shown) as progress:
        watcher = Shown(progress, [LINE, ERROR])
        watcher.begun(LINE)
        watcher.told("fake/line", "a-study", 1, 2)
        watcher.told("fake/gone", "a-study", 2, 2)
        assert progress.tasks[0].description == "[bold]fake/line[/] (a-study 1/2)"
        watcher.done(Outcome(LINE, 1.0))
        assert progress.tasks[0].description == ""
        assert progress.tasks[0].completed == 1


@pytest.mark.slow
def test_processes_end_with_the_command(tmp_path):
    """Also when it is killed: nobody is left at work."""
    script = (
        "import sys; from pathlib import Path; from rich.console import Console;"
        "from analysis.scale import Conditions;"
        "from paper_figures.figure import Figure; from paper_figures.produce import produce;"
        "wait = Figure('fake/wait', 'Fakes', '', 'tests.paper_figures.fakes:draw_for_ever', 1);"
        "last = Figure('fake/last', 'Fakes', '', 'tests.paper_figures.fakes:draw_for_ever', 1);"
        "produce([wait, last], Path(sys.argv[1]), Conditions(), Console(quiet=True), processes=2)"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2]) as running:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("*.pid"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        processes = [int(file.stem) for file in tmp_path.glob("*.pid")]
        assert len(processes) == 2
        running.kill()
    while any(_alive(process) for process in processes):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _alive(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.slow
def test_processes_that_have_drawn_leave_nothing_behind(tmp_path):
    """Python says at its end what the processes of the command have left in the system."""
    figures = ["igr/A.1", "igr/A.2", "--processes", "2", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "paper_figures", *figures, "--results", str(tmp_path / "r")]
    root = Path(__file__).parents[2]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0
    assert "2 of 2 figures drawn" in run.stdout
    assert "leaked" not in run.stderr
