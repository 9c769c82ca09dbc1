"""What a cell's result is called: equal for equal configurations and the code that is run."""

import enum
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from analysis.studies.spectreg import sin
from analysis.sweep import cell_name, code_version
from analysis.sweep.reached import _file_of, reached


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
        ({"n": 1}, TypeError, "a cell must be a frozen dataclass; got {'n': 1}"),
        (Outer, TypeError, "a cell must be a frozen dataclass"),
        (Outer(Inner((float("nan"),))), ValueError, r"rates\[0\] is NaN"),
        (Outer(Inner(()), extra=[1]), TypeError, r"extra is \[1\]: a cell's fields are numbers"),
        (Outer(Inner(()), extra=np.ones(2)), TypeError, "extra is array"),
    ],
)
def test_cells_that_have_no_name(config, error, says):
    with pytest.raises(error, match=says):
        cell_name(config, "a")


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
