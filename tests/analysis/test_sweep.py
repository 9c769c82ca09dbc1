"""Sweeps: what is kept, what is computed again, what survives a kill and a failure."""

import io
import json
import math
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from analysis.sweep import CellFailed, Study, missing, sweep
from analysis.sweep.compiled_programs import drop_compiled_programs
from tests.analysis.small_study import Cell, powers, unkeepable

QUIET = Console(quiet=True)


@pytest.fixture
def logs(tmp_path):
    (tmp_path / "logs").mkdir()
    return tmp_path / "logs"


def cells(logs, numbers, **fields):
    return tuple(Cell(n, str(logs), **fields) for n in numbers)


def done(folder):
    """The cells with a result; a folder that is still being written ends in .part."""
    records = folder.glob("*/record.json")
    return {path.parent.name for path in records if path.parent.suffix != ".part"}


def times_run(logs):
    return {int(path.stem): len(path.read_text()) for path in logs.glob("*.log")}


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.name != ".lock")


def test_only_what_is_missing_is_computed(tmp_path, logs):
    first = sweep(Study("s", powers, cells(logs, (1, 2))), tmp_path, console=QUIET)
    assert first.computed == 2
    wider = Study("s", powers, cells(logs, (1, 2, 3)))
    assert missing(wider, tmp_path) == wider.cells[2:]
    second = sweep(wider, tmp_path, console=QUIET)
    assert second.computed == 1
    assert times_run(logs) == {1: 1, 2: 1, 3: 1}
    for cell in wider.cells:
        np.testing.assert_array_equal(second[cell]["powers"], np.arange(5.0) ** cell.n)
        assert second[cell]["n"] == cell.n
        assert second[cell]["file"] == "a name savez knows"
    record = second[wider.cells[0]].record
    assert record["config"]["n"] == 1
    assert {"jax", "numpy"} <= set(record["versions"])
    assert min(record["seconds"], record["cpu_seconds"]) >= 0
    assert 1e7 < record["peak_bytes"] < 1e11  # a Python process with JAX
    assert {"commit", "machine"} <= set(record)
    assert sweep(wider, tmp_path, console=QUIET).computed == 0


def test_a_changed_cell_and_changed_code_are_computed_anew(tmp_path, logs, monkeypatch):
    study = Study("s", powers, cells(logs, (1,)))
    sweep(study, tmp_path, console=QUIET)
    changed = replace(study.cells[0], seconds=1e-3)
    assert sweep(Study("s", powers, (changed,)), tmp_path, console=QUIET).computed == 1
    monkeypatch.setattr("analysis.sweep.run.code_version", lambda function: "another")
    assert sweep(study, tmp_path, console=QUIET).computed == 1
    assert times_run(logs) == {1: 3}


def test_nothing_pickled_is_read_and_damage_is_named(tmp_path, logs):
    study = Study("s", powers, cells(logs, (1,)))
    sweep(study, tmp_path, console=QUIET)
    (arrays,) = (tmp_path / "s").glob("*/arrays.npz")
    np.savez(arrays, _powers=np.array([{}]))
    with pytest.raises(ValueError, match=r"is not a result as it was written .* remove it"):
        sweep(study, tmp_path, console=QUIET)
    arrays.write_bytes(b"PK half")
    with pytest.raises(ValueError, match="is not a result as it was written"):
        sweep(study, tmp_path, console=QUIET)


def test_a_cell_that_fails_stops_no_other_and_is_tried_again(tmp_path, logs):
    bad = Cell(2, str(logs), wrong=True)
    study = Study("s", powers, (*cells(logs, (1,)), bad, *cells(logs, (3,))))
    said = io.StringIO()
    swept = sweep(study, tmp_path, console=Console(file=said, width=200))
    assert swept.computed == 2
    (failure,) = swept.failures
    assert failure.cell == bad
    assert "ArithmeticError: no powers of 2" in failure.error
    assert "s: a cell failed" in said.getvalue()
    assert "ArithmeticError: no powers of 2" in said.getvalue()
    with pytest.raises(CellFailed, match="no powers of 2"):
        swept[bad]
    with pytest.raises(KeyError, match="is no cell of s"):
        swept[Cell(9)]
    assert sweep(study, tmp_path, console=QUIET).failures
    assert times_run(logs) == {1: 1, 2: 2, 3: 1}


def test_what_cannot_be_kept_is_a_failure_and_leaves_nothing(tmp_path):
    study = Study("s", unkeepable, (Cell(1, wrong=True), Cell(2)))
    swept = sweep(study, tmp_path, console=QUIET)
    assert swept.computed == 1
    assert "bad is an array of objects" in swept.failures[0].error
    assert len(files(tmp_path / "s")) == 3


def test_progress_tells_the_time_left(tmp_path, logs):
    said = io.StringIO()
    terminal = Console(file=said, force_terminal=True, width=120)
    study = Study("s", powers, cells(logs, (1, 2, 3), seconds=0.15), cost=lambda cell: cell.n)
    sweep(study, tmp_path, console=terminal)
    assert "known after the first cell" in said.getvalue()
    assert "3/3" in said.getvalue()
    assert "about 0:00 left" in said.getvalue()


SCRIPT = """
import sys
import analysis.sweep.cell
analysis.sweep.cell._surroundings = dict  # which would wait for the import of JAX
from pathlib import Path
from rich.console import Console
from analysis.sweep import Study, sweep
from tests.analysis.small_study import Cell, powers
cells = tuple(Cell(n, sys.argv[2], seconds=0.03) for n in range(40))
sweep(Study("s", powers, cells), Path(sys.argv[1]), console=Console(quiet=True))
"""


@pytest.mark.parametrize("moments", [(6,), pytest.param((2, 4, 6), marks=pytest.mark.slow)])
def test_kill_loses_the_running_cell_alone(tmp_path, logs, moments):
    # Killed each time with some cells done and some not.
    for enough in moments:
        command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(logs)]
        run = subprocess.Popen(command, cwd=Path(__file__).parents[2])
        deadline = time.monotonic() + 60
        while len(done(tmp_path / "s")) < enough:
            assert time.monotonic() < deadline
            assert run.poll() is None
            time.sleep(0.001)
        run.send_signal(signal.SIGKILL)
        run.wait()
    kept = done(tmp_path / "s")
    assert 6 <= len(kept) < 40
    started = times_run(logs)
    assert sum(started.values()) - len(kept) <= len(moments)  # one lost a kill
    study = Study("s", powers, tuple(Cell(n, str(logs), seconds=0.03) for n in range(40)))
    for name in kept:  # each is whole
        assert json.loads((tmp_path / "s" / name / "record.json").read_text())["values"]
        with np.load(tmp_path / "s" / name / "arrays.npz", allow_pickle=False) as arrays:
            assert arrays["_powers"].shape == (5,)
    (tmp_path / "s" / "half.1.part").mkdir(exist_ok=True)
    finished = sweep(study, tmp_path, console=QUIET)
    assert finished.computed == 40 - len(kept)
    assert len(finished.results) == 40
    assert len(files(tmp_path / "s")) == 3 * 40  # a folder and two files a cell, nothing else


def test_unknown_engine(tmp_path):
    with pytest.raises(ValueError, match="engine must be local or ray; got 'slurm'"):
        sweep(Study("s", powers, ()), tmp_path, engine="slurm")  # pyright: ignore


@pytest.mark.slow
def test_on_a_real_local_ray(tmp_path, logs):
    pytest.importorskip("ray")
    bad = Cell(2, str(logs), wrong=True)
    dying = Cell(3, str(logs), dies=2)
    study = Study("s", powers, (*cells(logs, (1,)), bad, dying))
    swept = sweep(study, tmp_path, engine="ray", console=QUIET)
    assert swept.computed == 2
    assert "ArithmeticError: no powers of 2" in swept.failures[0].error
    np.testing.assert_array_equal(swept[dying]["powers"], np.arange(5.0) ** 3)
    assert times_run(logs) == {1: 1, 2: 1, 3: 3}
    assert sweep(study, tmp_path, console=QUIET).computed == 0


@pytest.mark.skipif(sys.platform != "linux", reason="Linux limits the pieces of memory")
@pytest.mark.slow
def test_compiled_programs_are_dropped_once_they_are_too_many_or_take_too_much():
    traced = []

    @jax.jit
    def program(x):
        traced.append(1)
        return jnp.tanh(x) @ x

    program(jnp.eye(3))
    assert not drop_compiled_programs(1.0, math.inf)
    program(jnp.eye(3))
    assert traced == [1]
    assert drop_compiled_programs(0.0)
    program(jnp.eye(3))
    assert traced == [1, 1]
    assert not drop_compiled_programs()  # it has not grown since
    held = np.ones(2**23)  # 64 MiB, which no gap in the heap can hold
    assert drop_compiled_programs(1.0, held.nbytes / 2)
    program(jnp.eye(3))
    assert traced == [1, 1, 1]
    assert not drop_compiled_programs(1.0, held.nbytes / 2)  # what is held is no program
