"""Sweeps: what is kept, what is computed again, what survives a kill and a failure."""

import enum
import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from analysis.studies.spectreg import sin
from analysis.sweep import CellFailed, Study, cell_name, code_version, missing, sweep
from analysis.sweep.compiled_programs import drop_compiled_programs
from analysis.sweep.reached import _file_of, reached
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


def test_kill_loses_the_running_cell_alone(tmp_path, logs):
    # Killed at three moments, each time with some cells done and some not.
    for enough in (2, 4, 6):
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
    assert sum(started.values()) - len(kept) <= 3  # one lost a kill
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


@dataclass(frozen=True)
class Inner:
    rates: tuple[float, ...]


class Kind(enum.Enum):
    SGD = 1


@dataclass(frozen=True)
class Outer:
    inner: Inner
    kind: Kind | None = None
    extra: object = None


def test_names():
    names = {
        cell_name(config, version)
        for config in (
            Outer(Inner((0.1, 0.2))),
            Outer(Inner((0.1,))),
            Outer(Inner((0.1, 0.2)), Kind.SGD),
            Outer(Inner((0.1, 0.2)), extra=1),
            Outer(Inner((0.1, 0.2)), extra=1.0),
            Outer(Inner((0.1, 0.2)), extra="1"),
            Outer(Inner((0.1, 0.2)), extra=(1,)),
            Outer(Inner((0.1, 0.2)), extra=float("inf")),
        )
        for version in ("a", "b")
    }
    assert len(names) == 16


@pytest.mark.parametrize(
    ("config", "error", "says"),
    [
        ({"n": 1}, TypeError, "a cell is a frozen dataclass, got {'n': 1}"),
        (Outer, TypeError, "a cell is a frozen dataclass"),
        (Outer(Inner((float("nan"),))), ValueError, r"rates\[0\] is NaN"),
        (Outer(Inner(()), extra=[1]), TypeError, r"extra is \[1\]: a cell's fields are numbers"),
        (Outer(Inner(()), extra=np.ones(2)), TypeError, "extra is array"),
    ],
)
def test_cells_that_have_no_name(config, error, says):
    with pytest.raises(error, match=says):
        cell_name(config, "a")


def test_unknown_engine(tmp_path):
    with pytest.raises(ValueError, match="engine is local or ray, got 'slurm'"):
        sweep(Study("s", powers, ()), tmp_path, engine="slurm")  # pyright: ignore


def test_the_code_s_version(tmp_path, monkeypatch):
    module = tmp_path / "a_study_of_its_own.py"
    text = '"""Words."""\nimport analysis.data\n\ndef run(cell):\n    "More."\n    return 1\n'
    monkeypatch.syspath_prepend(tmp_path)

    def version(source):
        module.write_text(source)
        os.utime(module, ns=(version.now, version.now))
        version.now += 1_000_000_000
        sys.modules.pop("a_study_of_its_own", None)
        import a_study_of_its_own  # pyright: ignore

        return code_version(a_study_of_its_own.run)

    version.now = time.time_ns()
    base = version(text)
    assert version(text.replace("More", "Fewer") + "# a comment\n") == base
    assert version(text + "def study(scale):\n    return 3\n") == base
    assert version(text.replace("return 1", "return 2")) != base
    assert version(text.replace("import analysis.data", "")) == base
    assert version(text.replace("return 1", "return analysis.data.digits")) != base


def test_a_function_of_no_file_has_no_version():
    with pytest.raises(TypeError, match="is not in a file"):
        code_version(eval("lambda: 0", {"__name__": "nowhere"}))


TOY = {
    "__init__": "from toy_of_ours.rules import step as exported, other\n",
    "rules": """
from toy_of_ours.numbers import HALF
from functools import singledispatch
TABLE = {}
TABLE["a"] = 1
def step(x: int) -> int:
    "A step."
    return measure(x) * TABLE["a"] * HALF
def other(x):
    return x + 1
@singledispatch
def measure(x):
    return Unit().value
class Unit:
    value = 3
""",
    "numbers": "HALF = 0.5\nQUARTER = 0.25\n",
    "kinds": """
from toy_of_ours import rules
@rules.measure.register(int)
def _(x):
    return shared(x)
@rules.other.register
def _(x):
    return 5
def shared(x):
    return 2 * x
""",
    "whole": """
from toy_of_ours import exported
def use(): return exported
def unused(): return 1
""",
    "study": """
import toy_of_ours
from toy_of_ours import whole
def run(cell):
    return toy_of_ours.exported(cell), whole.use()
def study(scale):
    return run
""",
}


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """What `run` of a package of ours reaches, after edits of its modules."""
    package = tmp_path / "toy_of_ours"
    package.mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    _file_of.cache_clear()
    clock = iter(range(10**9, 10**12, 10**9))

    def after(module="study", old="", new=""):
        for name, text in TOY.items():
            path = package / f"{name}.py"
            path.write_text(text.replace(old, new) if name == module else text)
            now = next(clock)
            os.utime(path, ns=(now, now))
        return reached("toy_of_ours.study", package / "study.py", "run", ("toy_of_ours",))

    yield after
    _file_of.cache_clear()
    for name in [name for name in sys.modules if name.startswith("toy_of_ours")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("numbers", "QUARTER = 0.25", "QUARTER = 0.2"),
        ("rules", "return x + 1", "return x + 2"),
        ("rules", "A step.", "One step."),
        ("rules", "x: int) -> int", "x)"),
        ("whole", "return 1", "return 2"),
        ("kinds", "return 5", "return 6"),
        ("study", "return run", "return None"),
    ],
)
def test_an_edit_of_what_is_not_used_keeps_results(toy, module, old, new):
    assert old in TOY[module]
    assert toy(module, old, new) == toy()


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("numbers", "HALF = 0.5", "HALF = 0.4"),
        ("rules", '* TABLE["a"] * HALF', "* TABLE['a'] / HALF"),
        ("rules", 'TABLE["a"] = 1', 'TABLE["a"] = 2'),
        ("rules", "value = 3", "value = 4"),
        ("kinds", "return 2 * x", "return 3 * x"),  # by dispatch alone
        ("whole", "return exported", "return None"),
        ("__init__", "step as exported", "other as exported"),
        ("study", "whole.use()", "1"),
    ],
)
def test_an_edit_of_what_is_used_does_not(toy, module, old, new):
    assert old in TOY[module]
    assert toy(module, old, new) != toy()


def test_a_module_passed_on_is_taken_whole(toy):
    passed = toy("study", "whole.use()", "dir(whole)")
    assert ("toy_of_ours.whole", "*") in passed
    assert ("toy_of_ours.whole", "*") not in toy()


def test_a_study_depends_on_what_it_runs():
    path = Path(sin.__file__)
    found = reached(sin.__name__, path, "run", ("igr", "analysis"))
    modules = {module for module, _ in found}
    assert {"igr.penalties.spectral_penalty", "analysis.data.sin"} <= modules
    assert ("analysis.training.train", "train") in found
    assert not {m for m in modules if m.startswith(("igr.flows", "igr.backward_error", "igr.cli"))}
    assert not {m for m in modules if m.startswith("analysis.sweep")}


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
def test_compiled_programs_are_dropped_once_there_are_too_many():
    traced = []

    @jax.jit
    def program(x):
        traced.append(1)
        return jnp.tanh(x) @ x

    program(jnp.eye(3))
    assert not drop_compiled_programs(1.0)
    program(jnp.eye(3))
    assert traced == [1]
    assert drop_compiled_programs(0.0)
    program(jnp.eye(3))
    assert traced == [1, 1]
