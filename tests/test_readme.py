"""What the README says is so: its code runs, its table is the catalogue."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from paper_figures.__main__ import main as draw
from paper_figures.catalogue import FIGURES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
SHELL = [line for language, code in BLOCKS if language == "bash" for line in code.splitlines()]
INSTALLING = [line for line in SHELL if "pip install" in line]


def figures_table() -> str:
    """The table of figures as the README should have it."""
    rows = ["| figure | paper | shows | seconds | |", "|---|---|---|---:|---|"]
    for figure in FIGURES:
        cost = "" if figure.cost is None else f"{figure.cost:.0f}"
        ready = "ready" if figure.ready else "planned"
        rows.append(f"| `{figure.name}` | {figure.paper} | {figure.title} | {cost} | {ready} |")
    return "\n".join(rows)


def test_the_three_uses_are_there():
    assert len(PYTHON) == 2
    assert [line for line in SHELL if line.startswith("python -m paper_figures")]


@pytest.mark.parametrize("code", PYTHON, ids=["derive", "train"])
def test_python_blocks_run(code, capsys):
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    shown = capsys.readouterr().out
    for promised in re.findall(r"print\(.*\) +# ([^:\n]*)", code):
        assert promised in shown


def figure_commands(out):
    """The arguments of `python` in them, and where they shall draw."""
    lines = [line for line in SHELL if line.startswith("python -m paper_figures")]
    return [line.replace("--out figures", f"--out {out}").split()[1:] for line in lines]


def test_the_first_figure_of_each_command_is_drawn(tmp_path, capsys):
    """In this process: another has to start JAX."""
    names = [figure.name for figure in FIGURES]
    for _, _, *arguments in figure_commands(tmp_path):
        more = [name for name in arguments if name in names][1:]
        given = [argument for argument in arguments if argument not in more]
        assert draw([*given, "--processes", "1", "--results", str(tmp_path / "results")]) == 0
    assert (tmp_path / "igr" / "A.1.png").exists()


@pytest.mark.slow
def test_figure_commands_run(tmp_path):
    env = dict(os.environ, IGR_RESULTS=str(tmp_path / "results"))
    for arguments in figure_commands(tmp_path):
        subprocess.run(
            [sys.executable, *arguments], check=True, cwd=ROOT, env=env, capture_output=True
        )
    assert (tmp_path / "igr" / "A.1.png").exists()
    assert (tmp_path / "igr" / "A.2.claims.csv").exists()


def test_the_shell_derives_too(capsys):
    from igr.cli import main

    [line] = re.findall(r"`igr (derive [^`]*)`", README)
    assert not main(line.split())
    assert "frac" in capsys.readouterr().out


def test_there_are_two_commands_complete_in_themselves():
    figures, tests = INSTALLING
    for line in (figures, tests):
        assert line.startswith("python3 -m venv .venv && .venv/bin/python -m pip install ")
    assert figures.endswith("&& .venv/bin/python -m paper_figures")
    assert tests.endswith("&& .venv/bin/python -m pytest -n auto --dist loadfile")


def test_the_table_agrees_with_the_catalogue():
    expected = figures_table()
    assert expected in README, f"the README's table of figures should be\n\n{expected}"


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target
