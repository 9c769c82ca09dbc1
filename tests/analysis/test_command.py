"""`python -m analysis` and the studies it knows."""

import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

import analysis.studies
from analysis.__main__ import main
from analysis.scale import Conditions, Scale, conditions
from analysis.studies import STUDIES, computed, study
from analysis.studies.igr import width_and_rate
from analysis.sweep import Study, cell_name, keep
from tests.analysis.small_study import Cell, powers


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A study of two cells in place of ours."""
    module = types.ModuleType("a_small_study")
    monkeypatch.setitem(sys.modules, "a_small_study", module)
    monkeypatch.setattr(analysis.studies, "STUDIES", {"small": "a_small_study:study"})
    monkeypatch.setattr("analysis.__main__.STUDIES", analysis.studies.STUDIES)

    def install(*cells):
        module.study = lambda scale: Study("small", powers, cells)

    install(Cell(1), Cell(2))
    return install


def test_computes_once_and_says_so(small, tmp_path, capsys):
    arguments = ["small", "--results", str(tmp_path)]
    assert main(arguments) == 0
    assert "2 of 2 cells, 2 computed now, 0 failed" in capsys.readouterr().out.replace("\n", " ")
    assert main(arguments) == 0
    assert "0 computed now" in capsys.readouterr().out.replace("\n", " ")


def test_a_failure_is_the_exit_status(small, tmp_path, capsys):
    small(Cell(1), Cell(2, wrong=True))
    assert main(["small", "--results", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert "no powers of 2" in err
    assert "1 failed" in out.replace("\n", " ")


def test_bad_arguments(small, tmp_path, capsys, monkeypatch):
    assert main(["nope"]) == 2
    assert "no study is called 'nope'; --list shows them all" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["--results", str(tmp_path / "file")]) == 2
    assert "--results must be a folder" in capsys.readouterr().err
    monkeypatch.setenv("IGR_SCALE", "huge")
    assert main([]) == 2
    assert "scale must be quick, medium, full; got 'huge'" in capsys.readouterr().err


def test_only_the_cells_wanted_are_computed(small, tmp_path):
    here = Conditions(results=tmp_path)
    swept = computed("small", here, only=lambda cell: cell.n == 2)
    assert list(swept.results) == [Cell(2)]
    assert swept.computed == 1
    assert computed("small", here).computed == 1


def test_conditions_come_from_the_environment(tmp_path, monkeypatch):
    assert conditions() == Conditions()
    monkeypatch.setenv("IGR_SCALE", "full")
    monkeypatch.setenv("IGR_RESULTS", str(tmp_path))
    assert conditions() == Conditions("full", "local", tmp_path)


def test_a_failed_cell_stops_what_needs_it(small, tmp_path):
    small(Cell(3, wrong=True))
    with pytest.raises(RuntimeError, match=r"1 cells of small failed:(.|\n)*no powers of 3"):
        computed("small", Conditions(results=tmp_path))


def test_committed_results_are_those_that_were_kept(small, tmp_path):
    whole = computed("small", Conditions(results=tmp_path / "results"))
    assert keep(whole, tmp_path / "kept") > 0
    small(Cell(1), Cell(2))
    here = Conditions(results=tmp_path / "kept", committed=True)
    again = computed("small", here)
    for cell in (Cell(1), Cell(2)):
        np.testing.assert_array_equal(again[cell]["powers"], whole[cell]["powers"])
        assert again[cell]["file"] == "a name savez knows"
        assert again[cell].record["versions"] == whole[cell].record["versions"]
    small(Cell(1), Cell(3))
    with pytest.raises(FileNotFoundError, match=r"has no results of .*n=3.* without --from"):
        computed("small", here)


def test_an_interrupted_run_says_what_is_kept(small, tmp_path, capsys, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("analysis.__main__.sweep", interrupted)
    assert main(["small", "--results", str(tmp_path)]) == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert f"finished are in {tmp_path}/, and the same command goes on from there" in line


@pytest.mark.parametrize(
    ("printed", "status"), [("print('x' * 100_000)", 0), ("raise SystemExit(print('x') or 2)", 2)]
)
def test_a_reader_that_stops_early(printed, status):
    """Once in the midst of what is printed, and once with all of it still to be written."""
    script = f"""
import os
from analysis.command import leave
reader, writer = os.pipe()
os.close(reader)
os.dup2(writer, 1)
def main():
    {printed}
    return 0
leave(main)
"""
    buffered = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parents[2], capture_output=True,
        timeout=60, check=False, env=buffered,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (status, b"")


def test_control_c_ends_the_process_at_once_and_keeps_cells(tmp_path):
    script = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from analysis import __main__, studies
from analysis.command import leave
from analysis.sweep import Study
from tests.analysis.small_study import Cell, powers
import types
import analysis.sweep.cell
analysis.sweep.cell._surroundings = dict  # which would wait for the import of JAX
module = types.ModuleType("a_small_study")
module.study = lambda scale: Study("s", powers, (Cell(1), Cell(2, seconds=60.0)))
sys.modules["a_small_study"] = module
studies.STUDIES.clear()
studies.STUDIES["small"] = "a_small_study:study"
leave(lambda: __main__.main(["small", "--results", sys.argv[1]]))
"""
    run = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 180
        while not [p for p in tmp_path.glob("s/*/record.json") if p.parent.suffix != ".part"]:
            assert time.monotonic() < deadline
            assert run.poll() is None
            time.sleep(0.01)
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=50)
    finally:
        run.kill()  # nothing where it has ended
        run.communicate()
    assert run.returncode == 130
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("interrupted; the cells that were finished are in")
    assert len(list(tmp_path.glob("s/*/record.json"))) == 1


@pytest.mark.parametrize("scale", get_args(Scale))
@pytest.mark.parametrize("name", STUDIES)
def test_every_study_has_cells_with_names_of_their_own(name, scale):
    cells = study(name, scale).cells
    assert len({cell_name(cell, "") for cell in cells}) == len(cells) > 0


def test_the_list(capsys):
    assert main(["--list"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert ["igr-width-and-rate", "3 cells", "2 min"] in rows
    assert [row[0] for row in rows] == list(STUDIES)
    assert main(["--list", "metric", "--scale", "full"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert {row[0] for row in rows} == {name for name in STUDIES if name.startswith("metric-")}
    assert ["metric-power-method", "1 cells"] in [row[:2] for row in rows]


@pytest.mark.slow
def test_igr_width_and_rate_on_a_small_cell():
    cell = width_and_rate.Cell("digits", 20, (0.05, 0.2), (0, 1), 400, 4, depth=2)
    values = width_and_rate.run(cell)
    assert values["R"].shape == (2, 2, 5)
    assert values["parameters"] == 64 * 20 + 20 + 20 * 20 + 20 + 20 * 10 + 10
    assert (values["train_loss"][..., -1] < values["train_loss"][..., 0] / 2).all()
    assert np.all(values["R"] > 0)
