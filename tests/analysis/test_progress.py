"""Progress in a log: lines now and then, and none of what is meant for a terminal."""

import io
import re
import threading
import time

import pytest
from rich.console import Console
from rich.progress import BarColumn, TextColumn

from analysis import progress
from analysis.progress import shown_on
from analysis.sweep import Study, sweep
from tests.analysis.small_study import Cell, powers

COLUMNS = (TextColumn("[bold]{task.description}[/]"), BarColumn(), TextColumn("{task.completed}"))


@pytest.fixture
def soon(monkeypatch):
    """The first line comes at once, and the next in a minute."""
    monkeypatch.setattr(progress, "FIRST", 0.3)
    monkeypatch.setattr(progress, "EVERY", 60.0)


def log(width=80):
    return Console(file=io.StringIO(), force_terminal=False, width=width)


def wait_for(lines, console):
    deadline = time.monotonic() + 30
    while console.file.getvalue().count("\n") < lines:
        assert time.monotonic() < deadline, console.file.getvalue()
        time.sleep(0.01)


def test_a_line_comes_while_nothing_moves_and_then_a_pause(soon):
    console = log()
    with shown_on(console, *COLUMNS) as shown:
        shown.add_task("a study", total=3, completed=2)
        wait_for(1, console)
        time.sleep(1.0)
    assert re.fullmatch(r"\d\d:\d\d:\d\d  a study  2\n", console.file.getvalue())


def test_lines_follow_what_is_done(soon, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.02)
    console = log()
    with shown_on(console, *COLUMNS) as shown:
        task = shown.add_task("a study", total=3)
        wait_for(2, console)
        shown.update(task, advance=1)
        wait_for(console.file.getvalue().count("\n") + 2, console)
    lines = [line.split("  ", 1)[1] for line in console.file.getvalue().splitlines()]
    assert list(dict.fromkeys(lines)) == ["a study  0", "a study  1"]


def test_a_long_line_is_one_line(soon):
    console = log(width=20)
    with shown_on(console, *COLUMNS) as shown:
        shown.add_task("word " * 20, total=3)
        wait_for(1, console)
    assert console.file.getvalue().count("\n") == 1


def test_a_line_is_in_the_file_at_once(soon, tmp_path):
    with (
        open(tmp_path / "log", "w", encoding="utf-8") as file,
        shown_on(Console(file=file), *COLUMNS) as shown,
    ):
        shown.add_task("a study", total=3)
        deadline = time.monotonic() + 30
        while "a study" not in (tmp_path / "log").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_ends_it(error, soon, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.02)
    console, before = log(), threading.active_count()

    def fail():
        with shown_on(console, *COLUMNS) as shown:
            shown.add_task("a study", total=3)
            wait_for(1, console)
            raise error

    with pytest.raises(error):
        fail()
    assert threading.active_count() == before
    said = console.file.getvalue()
    time.sleep(0.1)
    assert console.file.getvalue() == said


def test_on_a_terminal_there_is_the_bar_alone(soon, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with shown_on(console, *COLUMNS) as shown:
        shown.add_task("a study", total=3)
        time.sleep(0.6)
    assert "━" in console.file.getvalue()
    assert not re.search(r"\d\d:\d\d:\d\d", console.file.getvalue())


def test_what_ends_soon_says_nothing(tmp_path):
    console = log()
    sweep(Study("s", powers, (Cell(1), Cell(2))), tmp_path, console=console)
    assert console.file.getvalue() == ""


def test_a_sweep_tells_how_far_it_is_within_a_cell(tmp_path, soon):
    console = log()
    sweep(Study("s", powers, (Cell(1, seconds=1.0), Cell(2))), tmp_path, console=console)
    line = r"\d\d:\d\d:\d\d  s  0/2  time left: known after the first cell\n"
    assert re.fullmatch(line, console.file.getvalue())
