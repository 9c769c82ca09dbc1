"""The command `python -m benchmarks`, on benchmarks that take no time."""

import itertools
import json
import re
import sys
import time
import types

import numpy as np
import pytest

from benchmarks.__main__ import collect, main, names
from benchmarks.measure import Row, median_seconds


@pytest.fixture
def fake(monkeypatch):
    """Puts a benchmark with these rows in place of one of ours."""

    def install(name, rows):
        module = types.ModuleType(f"benchmarks.{name}")
        module.rows = rows
        monkeypatch.setitem(sys.modules, f"benchmarks.{name}", module)

    return install


def test_every_module_but_the_frame_is_a_benchmark():
    assert {"derivation", "field", "discrete"} <= set(names())
    assert not {"measure", "__main__", "__init__"} & set(names())


@pytest.mark.parametrize(
    ("measured", "target", "met"),
    [
        (3.0, "<= 3.5", True),
        (3.5, "<= 3.5", True),
        (3.6, "<= 3.5", False),
        (float("nan"), "<= 3.5", False),
        (12.0, ">= 10", True),
        (1.0, "< 1", False),
        (1.0, "> 0.5", True),
        (1.0, "", None),
    ],
)
def test_met(measured, target, met):
    assert Row("what", measured, "s", target).met is met


def test_a_target_that_cannot_be_read():
    with pytest.raises(
        ValueError, match=r"target must be <=, >=, <, > and a number, such as '<= 3\.5'"
    ):
        _ = Row("what", 1.0, "s", "about 3").met


def test_tuples_are_rows(fake):
    fake("field", lambda: [("a", 1.0, "s", "<= 2"), Row("b", 2.0, "s"), ("c", 3.0, "s")])
    found = collect("field")
    assert found == [Row("a", 1.0, "s", "<= 2"), Row("b", 2.0, "s"), Row("c", 3.0, "s")]


def test_every_row_says_what_it_took(fake):
    def slow():
        yield Row("a", 1.0, "s")
        time.sleep(0.05)
        yield Row("b", 1.0, "s")

    fake("field", slow)
    first, second = collect("field")
    assert first.took is not None
    assert second.took is not None
    assert second.took >= 0.05


def test_the_table(fake, capsys):
    fake(
        "field", lambda: [("order 1", 3.0, "gradients", "<= 3.5"), ("order 4", 21.0, "x", "<= 20")]
    )
    fake("discrete", lambda: iter([Row("a step", 0.00123, "s")]))
    assert main(["field", "discrete", "field"]) == 0
    out = capsys.readouterr().out
    for part in ("order 1", "gradients", "<= 3.5", "yes", "no", "0.00123", "1 of 2 targets met"):
        assert part in out
    assert out.count("order 1") == 1
    assert out.index("order 4") < out.index("a step")


def test_json(fake, tmp_path, capsys):
    fake("field", lambda: [("order 1", np.float32(3.0), "gradients", "<= 3.5")])
    path = tmp_path / "numbers.json"
    assert main(["field", "--json", str(path)]) == 0
    written = json.loads(path.read_text())
    assert 0 <= written["rows"][0].pop("took") < 1
    assert written["rows"] == [
        {
            "benchmark": "field",
            "what": "order 1",
            "measured": 3.0,
            "unit": "gradients",
            "target": "<= 3.5",
            "met": True,
        }
    ]
    assert set(written["versions"]) >= {"jax", "sympy"}
    assert written["python"].startswith("3.")


def test_one_that_fails_does_not_lose_the_others(fake, capsys):
    def broken():
        yield Row("before", 1.0, "s")
        raise RuntimeError("no memory left")

    fake("field", broken)
    fake("discrete", lambda: [Row("a step", 1.0, "s")])
    assert main(["field", "discrete"]) == 1
    out, err = capsys.readouterr()
    assert "a step" in out
    assert "field did not run: RuntimeError: no memory left" in err


def test_the_list_is_a_line_a_benchmark(capsys):
    assert main(["--list"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == names()
    about = dict(row[:2] for row in rows)
    assert about["penalties"].startswith("What penalties cost, in gradients of the plain loss")


def test_an_interrupted_run_prints_what_it_has(fake, capsys):
    def interrupted():
        raise KeyboardInterrupt

    fake("discrete", lambda: [Row("a step", 1.0, "s")])
    fake("field", interrupted)
    assert main(["discrete", "field", "training"]) == 130
    out, err = capsys.readouterr()
    assert "a step" in out
    assert err.splitlines()[-1].endswith("measured by: python -m benchmarks field training")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nope"], "no benchmark is called 'nope'; --list shows them all"),
        (["feild"], "no benchmark is called 'feild'; close: field"),
        (
            ["field", "--json", "/not/there/x.json"],
            "--json must be a file in a folder that is there",
        ),
        (["field", "--json", "."], "--json must be a file in a folder that is there; got ."),
    ],
)
def test_bad_input(arguments, says, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2

    assert re.search(says, capsys.readouterr().err)


def test_median_seconds_takes_turns():
    calls = []
    found = median_seconds(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=3
    )
    assert calls == ["a", "b", *["a", "a", "b", "b"] * 3]
    calls.clear()
    median_seconds(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=2, settle=False
    )
    assert calls == ["a", "b"] * 3
    assert set(found) == {"a", "b"}
    assert all(0 <= seconds < 1 for seconds in found.values())


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_derivation_runs_cold_in_its_own_process(monkeypatch, number):
    from benchmarks import derivation

    monkeypatch.setattr(derivation, "_TARGETS", {3: 1.0})
    monkeypatch.setattr(derivation, "find_spec", lambda name: None)
    first, *more = itertools.islice(derivation.rows(), number)  # Adam's, which follow, take seconds
    assert first.name == "explicit Euler, trees to 3 vertices (h^2)"
    assert [row.name for row in more] == ["explicit Euler, trees to 4 vertices (h^3)"][: number - 1]
    assert first.met
    assert first.measured > 0
