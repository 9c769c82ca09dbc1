"""The run on a GPU: its time, its file, and all of it once at a tiny size."""

import itertools
import json
import re
import time
from functools import partial
from pathlib import Path
from typing import ClassVar

import jax
import pytest

from benchmarks import gpu
from benchmarks.__main__ import main
from benchmarks.gpu.worker import Skipped, Worker
from benchmarks.measure import Row


def test_stops_at_its_time_with_what_it_has(tmp_path):
    ticks = itertools.count(step=1.0)
    file = tmp_path / "gpu.json"
    pieces = {
        "first": lambda: iter([Row("a", 1.0, "s", "<= 2"), Row("b", 3.0, "s", "<= 2")]),
        "broken": _broken,
        "elsewhere": _elsewhere,
        "endless": lambda: (Row(str(i), float(i), "s") for i in itertools.count()),
        "never": lambda: iter([Row("z", 0.0, "s")]),
    }
    report = gpu.measure(pieces, file, 40.0, {"device": "none"}, clock=lambda: next(ticks))
    assert json.loads(file.read_text()) == report
    assert [row["what"] for row in report["rows"][:4]] == ["a", "b", "one peer", "0"]
    assert [row["met"] for row in report["rows"][:2]] == [True, False]
    assert report["failed"] == {"broken": "MemoryError: too large"}
    assert report["skipped"] == {"elsewhere": "another peer is not installed"}
    assert report["left"] == ["endless", "never"]
    assert not list(tmp_path.glob("*.part"))


def _broken():
    raise MemoryError("too large")
    yield


def _elsewhere():
    yield Row("one peer", 1.0, "s")
    raise Skipped("another peer is not installed")


def test_the_file_is_whole_after_every_row(tmp_path):
    file = tmp_path / "gpu.json"

    def rows():
        for i in range(3):
            yield Row(str(i), float(i), "s")
            written.append([row["what"] for row in json.loads(file.read_text())["rows"]])

    written = []
    gpu.measure({"piece": rows}, file, 1e9, {})
    assert written == [["0"], ["0", "1"], ["0", "1", "2"]]


@pytest.mark.slow
def test_a_row_that_hangs_is_ended_with_its_process(tmp_path, monkeypatch):
    """It holds Python's lock in C, where no signal and no other thread would be heard."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    worker = Worker(True, "cards:Hanging")
    try:
        begun = time.monotonic()
        report = gpu.measure(worker.pieces(), tmp_path / "gpu.json", 60.0, worker.about, 5.0)
        took = time.monotonic() - begun
        # What the card knew of itself is known in the process that follows one that was ended.
        said = [(row["piece"], row["what"], row["measured"]) for row in report["rows"]]
        assert said == [("first", "a", 1.0), ("hangs", "b", 2.0), ("last", "z", 41.0)]
        assert report["ended"] == {"hangs": "a row was ended, for it took longer than it may"}
        assert report["failed"] == {
            "dies": "its process ended with exit code 7", "raises": "MemoryError: too large"
        }  # fmt: skip
        assert report["left"] == ["hangs"]
        assert took < 30
        # The time of the whole run ends a row too, and is no fault of the row's.
        pieces = {n: p for n, p in worker.pieces().items() if n == "hangs"}
        begun = time.monotonic()
        report = gpu.measure(pieces, tmp_path / "gpu.json", 1.0, {}, 60.0)
        assert time.monotonic() - begun < 10
        assert [row["what"] for row in report["rows"]] == ["b"]
        assert report["ended"] == {}
        assert report["left"] == ["hangs"]
    finally:
        worker.end()


def test_a_card_that_cannot_be_used_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    monkeypatch.setattr(gpu, "Worker", partial(Worker, card="cards:broken"))
    assert main(["gpu", "--out", str(tmp_path)]) == 1
    why = "nothing was measured: the card cannot be used: OSError: no driver"
    assert why in capsys.readouterr().err


class _Here:
    """A worker in this process."""

    def __init__(self, card):
        self.about, self.pieces = card.about(), card.pieces

    def end(self):
        pass


class _Fake:
    """A card on which every piece says that it was run; the second fails once."""

    runs: ClassVar[list[str]] = []

    def __init__(self, tiny):
        self.tiny = tiny

    def about(self):
        return {"device": "a card", "tiny": self.tiny}

    def pieces(self):
        def rows(name):
            self.runs.append(name)
            if self.runs.count("second") == 1 and name == "second":
                raise MemoryError("too large")
            yield Row(name, 1.0, "s")

        return {name: partial(rows, name) for name in ("limits", "first", "second", "third")}


def test_resume_measures_what_is_not_there(tmp_path, monkeypatch, capsys):
    _Fake.runs.clear()
    monkeypatch.setattr(gpu, "Worker", lambda tiny: _Here(_Fake(tiny)))
    out = ["gpu", "--out", str(tmp_path)]
    only = [word for name in ("limits", "first", "second") for word in ("--only", name)]
    assert main([*out, *only]) == 1
    assert _Fake.runs == ["limits", "first", "second"]
    assert main([*out, "--resume"]) == 0
    assert _Fake.runs == ["limits", "first", "second", "limits", "second", "third"]
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert [row["piece"] for row in report["rows"]] == ["first", "limits", "second", "third"]
    assert report["left"] == []
    assert report["failed"] == {}
    capsys.readouterr()
    for arguments, says in (
        ([*out, "--resume", "--tiny"], "is of {'tiny': False}, and this is {'tiny': True}"),
        (["gpu", "--out", str(tmp_path / "none"), "--resume"], "which is not there"),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert says in capsys.readouterr().err


def test_a_long_piece_is_left_for_the_next(tmp_path):
    ticks = itertools.count(step=8.0)
    pieces = {
        "long": lambda: (Row(str(i), 0.0, "s") for i in itertools.count()),
        "next": lambda: iter([Row("z", 0.0, "s")]),
    }
    report = gpu.measure(pieces, tmp_path / "gpu.json", 1e4, {}, clock=lambda: next(ticks))
    assert report["rows"][-1]["piece"] == "next"
    assert report["left"] == ["long"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--minutes", "0"], "--minutes must be more than 0; got 0"),
        (["--tiny", "--only", "nothing"], "--only must be one of limits, run, .*got nothing"),
    ],
)
def test_bad_arguments(tmp_path, capsys, monkeypatch, arguments, message):
    from benchmarks.gpu.pieces import Card

    monkeypatch.setattr(gpu, "Worker", lambda tiny: _Here(Card(tiny)))
    with pytest.raises(SystemExit) as stopped:
        main(["gpu", "--out", str(tmp_path), *arguments])
    assert stopped.value.code == 2
    assert re.search(message, capsys.readouterr().err)


ROWS = {  # a part of what each piece measures, in its order
    "limits": ["product of 256 x 256 in bf16", "reading and writing"],
    "run": ["igr.run, 5 AdamW steps", "a step", "a step", "a call for one step"],
    "fields-large-bf16": ["gradient", "field of GD, order 1", "field of Muon", "field of Adam"],
    "compare-large": ["compare, 4 AdamW steps", "order 0 after 4 steps", "order 1 after 4 steps"],
    "curvature": ["Hessian product", "lanczos", "subspace"],
    "robust": ["winsorize", "median of 8 means"],
    "per-example": ["coherence", "stiffness", "tr K"],
    "monitor": ["monitor of slope"],
    "seeds": ["4 vmapped seeds"],
    "fields-middle": ["field of GD, order 0", "field of Muon", "field of Adam"],
}
QUICK = ("limits",)  # the others compile for long


@pytest.mark.parametrize(
    "piece", [p if p in QUICK else pytest.param(p, marks=pytest.mark.slow) for p in ROWS]
)
def test_a_piece_at_a_tiny_size(tmp_path, piece):
    assert main(["gpu", "--tiny", "--minutes", "8", "--out", str(tmp_path), "--only", piece]) == 0
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert report["left"] == []
    assert report["failed"] == {}
    whats = "; ".join(row["what"] for row in report["rows"])
    assert re.search(".*".join(map(re.escape, ROWS[piece])), whats)
    # Without the card's limits, a share of them is not a number; all else is.
    assert all(
        row["measured"] == row["measured"] for row in report["rows"] if "card" not in row["unit"]
    )


def test_peers_that_are_not_installed_are_named(tmp_path, monkeypatch, capsys):
    from benchmarks import curvature_peers
    from benchmarks.gpu.pieces import Card

    monkeypatch.setattr(gpu, "Worker", lambda tiny: _Here(Card(tiny)))
    monkeypatch.setattr(curvature_peers, "_imported", lambda name: None)
    assert main(["gpu", "--tiny", "--out", str(tmp_path), "--only", "torch"]) == 0
    why = "torch, hessian_eigenthings, curvlinops, pyhessian not installed"
    assert json.loads((tmp_path / "gpu.json").read_text())["skipped"] == {"torch": why}
    assert f"torch was left out: {why}" in capsys.readouterr().err


def test_every_piece_is_run_at_a_tiny_size():
    from benchmarks.gpu.pieces import Card

    tiny, whole = Card(tiny=True).pieces(), Card(tiny=False).pieces()
    assert {*ROWS, "torch"} == set(tiny)
    assert set(tiny) <= set(whole)
    assert list(whole)[:3] == ["limits", "run", "fields-large-bf16"]


def test_fields_of_every_order_are_asked_for_at_every_size(monkeypatch):
    from benchmarks.gpu import pieces

    asked = set()

    def fields(self, size, dtype, orders):
        asked.update((size, dtype.dtype.name, order) for order in orders)
        yield from ()

    monkeypatch.setattr(pieces.Card, "fields", fields)
    for name, piece in pieces.Card(tiny=False).pieces().items():
        assert not name.startswith("fields") or list(piece()) == []
    sizes = ("10^6", "float32"), ("10^7", "float32"), ("10^8", "float32"), ("10^8", "bfloat16")
    assert asked == {(*size, order) for size in sizes for order in (0, 1, 2)}
    assert set(pieces._methods()) == {"GD", "Adam", "Muon"}


def test_the_large_pieces_are_of_gpt_2s_size():
    """10^8 parameters in bfloat16 and float32: counted without making them."""
    from benchmarks.gpu.transformer import SHAPES, decoder

    for size, dtype, number in (
        ("10^8", "bfloat16", 123_944_448),
        ("10^8", "float32", 123_944_448),
        ("10^7", "float32", 10_080_320),
        ("10^6", "float32", 935_040),
    ):
        make = partial(decoder, shape=SHAPES[size], dtype=dtype)
        params = jax.tree.leaves(jax.eval_shape(make, jax.random.key(0)))
        assert sum(x.size for x in params) == number
        assert {x.dtype.name for x in params} == {dtype}
