"""Cells on several GPUs: how those are counted, and what processes that are pinned to them do.

No test needs a GPU: what CUDA would read from the environment is what is looked at.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from analysis.scale import Conditions
from analysis.sweep import Study, gpus, leave_gpus_to_cells, sweep, visible_gpus
from paper_figures.__main__ import default_processes, main
from paper_figures.figure import Figure
from paper_figures.plan import gpus_used
from tests.analysis.small_study import Cell, cosine, powers, where
from tests.analysis.test_sweep import QUIET, done, times_run
from tests.paper_figures.test_produce import LINE, _alive

LISTED = """GPU 0: NVIDIA H200 (UUID: GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c)
  MIG 1g.18gb     Device  0: (UUID: MIG-c7384736-a75d-5afc-978f-d2f1294409fd)
GPU 1: NVIDIA H200 (UUID: GPU-b2acb2d5-8a10-4e2f-9d65-6f2f7a4f0b1e)
"""


@pytest.fixture(autouse=True)
def cuda(monkeypatch):
    """JAX is as if installed with CUDA, and nothing is said of GPUs."""
    monkeypatch.setattr(gpus, "_jax_has_cuda", lambda: True)
    for name in ("CUDA_VISIBLE_DEVICES", "JAX_PLATFORMS", "XLA_PYTHON_CLIENT_PREALLOCATE"):
        monkeypatch.delenv(name, raising=False)
    gpus._in_this_machine.cache_clear()
    yield
    gpus._in_this_machine.cache_clear()


@pytest.fixture
def two(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ("0,1", ("0", "1")),
        (" 3 ", ("3",)),
        ("GPU-4cf8,MIG-c738", ("GPU-4cf8", "MIG-c738")),
        ("2,-1,0", ("2",)),
        ("", ()),
        ("-1", ()),
        ("NoDevFiles", ()),
    ],
)
def test_the_environment_names_gpus_as_cuda_reads_it(given, seen, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert visible_gpus() == seen


@pytest.mark.parametrize(
    ("platforms", "number"), [("cpu", 0), ("tpu,cpu", 0), ("cuda,cpu", 2), ("gpu", 2), ("", 2)]
)
def test_platforms_without_gpus(platforms, number, two, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    assert len(visible_gpus()) == number


@pytest.mark.skipif(sys.platform == "win32", reason="a script of the shell")
def test_the_driver_is_asked_and_its_folders_count_where_it_does_not_answer(tmp_path, monkeypatch):
    driver = tmp_path / "gpus"
    monkeypatch.setattr(gpus, "_DRIVER", driver)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus() == ()

    command = tmp_path / "nvidia-smi"
    command.write_text(f"#!/bin/sh\n[ $1 = -L ] && echo '{LISTED}'")
    command.chmod(0o755)
    for bus in range(3):
        (driver / f"0000:{bus}0:00.0").mkdir(parents=True)
    gpus._in_this_machine.cache_clear()
    assert visible_gpus() == ("0", "1")

    command.write_text("#!/bin/sh\necho 'GPU 0: of which nothing more is known'\nexit 9")
    gpus._in_this_machine.cache_clear()
    assert visible_gpus() == ("0", "1", "2")


def test_jax_without_cuda_sees_none(two, monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    (tmp_path / "jax_plugins" / "another").mkdir(parents=True)
    (tmp_path / "jax_plugins" / "another" / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert visible_gpus() == ()
    (tmp_path / "jax_plugins" / "another").rename(tmp_path / "jax_plugins" / "xla_cuda12")
    assert visible_gpus() == ("3", "5")


def test_each_cell_is_run_once_in_a_process_that_sees_one_gpu(tmp_path, two):
    study = Study("s", where, tuple(Cell(n, seconds=0.01) for n in range(9)))
    swept = sweep(study, tmp_path, console=QUIET)
    assert swept.computed == len(swept.results) == 9
    found = {(swept[cell]["process"], swept[cell]["gpus"]) for cell in study.cells}
    assert sorted(gpu for _, gpu in found) == ["3", "5"]
    assert os.getpid() not in {process for process, _ in found}
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3,5"


@pytest.mark.slow
def test_fewer_cells_than_gpus_have_several_each_however_many_are_there(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4")
    alone = sweep(Study("s", where, (Cell(2),)), tmp_path, console=QUIET)
    assert alone[Cell(2)]["gpus"] == "0,1,2,3,4"
    both = sweep(Study("s", where, (Cell(1), Cell(2))), tmp_path, console=QUIET)
    assert both.computed == 1
    assert both[Cell(1)]["gpus"] == "0,1"


@pytest.mark.slow
def test_the_numbers_are_those_of_one_process(tmp_path, monkeypatch):
    """In double precision, which these tests have switched on and the environment does not."""
    study = Study("s", cosine, tuple(Cell(n) for n in range(4)))
    here = sweep(study, tmp_path / "here", console=QUIET)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    there = sweep(study, tmp_path / "there", console=QUIET)
    for cell in study.cells:
        np.testing.assert_array_equal(there[cell]["cosine"], here[cell]["cosine"])
        assert there[cell]["cosine"].dtype == float
        by_hand = np.cos(cell.n * np.linspace(0, 1, 7)).sum()
        np.testing.assert_allclose(there[cell]["cosine"], by_hand, rtol=1e-14)


@pytest.mark.slow
def test_a_process_that_dies_costs_its_cell_a_second_run_and_no_other(tmp_path, two):
    cells = [Cell(n, str(tmp_path)) for n in range(6)]
    cells[1] = Cell(1, str(tmp_path), dies=1)
    cells[2] = Cell(2, str(tmp_path), dies=9)
    cells[3] = Cell(3, str(tmp_path), wrong=True)
    study = Study("s", powers, tuple(cells))
    swept = sweep(study, tmp_path, console=QUIET)
    assert swept.computed == 4
    assert times_run(tmp_path) == {0: 1, 1: 2, 2: 2, 3: 1, 4: 1, 5: 1}
    np.testing.assert_array_equal(swept[cells[1]]["powers"], np.arange(5.0))
    errors = {failure.cell: failure.error for failure in swept.failures}
    assert errors[cells[2]] == "Its process died 2 times: out of memory, or killed."
    assert "ArithmeticError: no powers of 3" in errors[cells[3]]
    assert len(errors) == 2


@pytest.mark.slow
def test_the_dearest_cells_are_begun_first(tmp_path, two):
    study = Study("s", powers, tuple(Cell(n) for n in range(4)), cost=lambda cell: cell.n)
    told = []
    sweep(study, tmp_path, told=lambda finished, number: told.append((finished, number)))
    assert told == [(n, 4) for n in range(5)]
    first = min((tmp_path / "s").glob("*/arrays.npz"), key=lambda file: file.stat().st_mtime_ns)
    assert _number(first) in (2, 3)


SCRIPT = """
import os, sys
from pathlib import Path
from rich.console import Console
import analysis.sweep.cell
from analysis.sweep import Study, gpus, sweep
from tests.analysis.small_study import Cell, powers
analysis.sweep.cell._surroundings = dict  # which would wait for the import of JAX
gpus._jax_has_cuda = lambda: True
folder = Path(sys.argv[1])
with (folder / f"{os.getpid()}.sees").open("w") as file:
    file.write(os.environ["CUDA_VISIBLE_DEVICES"])
if __name__ == "__main__":
    cells = tuple(Cell(n, sys.argv[1], seconds=float(sys.argv[2])) for n in range(20))
    sweep(Study("s", powers, cells), folder, console=Console(quiet=True))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_nobody_outlives_a_run_that_is_stopped_and_the_next_goes_on(how, tmp_path, two):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    root = Path(__file__).parents[2]
    env = dict(os.environ, CUDA_VISIBLE_DEVICES="3,5", PYTHONPATH=str(root))
    command = [sys.executable, str(script), str(tmp_path), "1.0"]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE) as run:
        deadline = time.monotonic() + 60
        while len(done(tmp_path / "s")) < 4:
            assert time.monotonic() < deadline
            assert run.poll() is None
            time.sleep(0.01)
        run.send_signal(how)
        run.wait(timeout=20)
    # What the script's first lines saw: JAX, had they started it, would have kept to one GPU, too.
    seen = {int(file.stem): file.read_text() for file in tmp_path.glob("*.sees")}
    assert seen.pop(run.pid) == "3,5"
    assert sorted(seen.values()) == ["3", "5"]
    while any(_alive(process) for process in seen):
        assert time.monotonic() < deadline
        time.sleep(0.01)

    kept = done(tmp_path / "s")
    assert 4 <= len(kept) < 20
    study = Study("s", powers, tuple(Cell(n, str(tmp_path), seconds=1.0) for n in range(20)))
    finished = sweep(study, tmp_path, console=QUIET)
    assert finished.computed == 20 - len(kept)
    assert len(finished.results) == 20
    assert sum(times_run(tmp_path).values()) <= 22  # those that ran when it was stopped


def test_what_draws_leaves_the_gpus_memory_to_the_cells_and_says_how_many_gpus_it_uses(
    monkeypatch,
):
    costly = [Figure("a/1", "A", "", "a:draw", 3600)] * 2
    name = "XLA_PYTHON_CLIENT_PREALLOCATE"
    monkeypatch.setenv(name, "")  # so that what is set below is undone
    for given, engine, line, left, alone in (
        ("", "local", "GPUs: none", None, False),
        ("0", "local", "GPUs: 1", None, False),
        ("0,1", "local", "GPUs: 2, a cell on each", "false", True),
        ("0", "ray", "GPUs: those of the Ray cluster, a cell on each", "false", True),
    ):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
        monkeypatch.delenv(name)
        leave_gpus_to_cells(engine)
        assert os.environ.get(name) == left
        here = Conditions(engine=engine)
        assert gpus_used(here) == line
        assert default_processes(costly, here) == 1 or not alone
        monkeypatch.setenv(name, "true")
        leave_gpus_to_cells(engine)
        assert os.environ[name] == "true"


def test_the_command_says_so_before_it_starts(two, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("paper_figures.__main__.plan", lambda conditions: ())
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "")
    monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE")
    assert main(["--all", "--out", str(tmp_path)], (LINE,)) == 0
    assert "GPUs: 2, a cell on each" in capsys.readouterr().out.partition("fake/line")[0]
    assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"


def _number(file):
    with np.load(file) as arrays:
        return round(np.log2(arrays["_powers"][2]))
