"""What is kept, what is drawn from it, and the page of claims made of it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.studies.spectreg import sin as spectreg_sin
from analysis.sweep import CellResult, Sweep, committed, keep
from paper_figures.__main__ import main
from paper_figures.catalogue import FIGURES
from paper_figures.claims_page import found, has_interval, write_page
from paper_figures.figure import Figure
from paper_figures.keep import write_provenance
from tests.paper_figures.test_produce import LINE

SIN = Figure("fake/sin", "Fakes", "from a study", "tests.paper_figures.fakes:draw_from_a_study", 1)


def test_claims_and_numbers_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("paper_figures.keep.STUDIES", {})
    kept = tmp_path / "kept"
    assert main(["--out", str(tmp_path / "out"), "--keep", str(kept)], (LINE,)) == 0
    for end in (".csv", ".claims.csv"):
        text = (kept / f"quick/fake/line{end}").read_bytes()
        assert text == (tmp_path / f"out/fake/line{end}").read_bytes()


def test_provenance_is_that_of_each_study(tmp_path):
    (cell,) = spectreg_sin.study("quick").cells
    record = {
        "seconds": 3.0,
        "cpu_seconds": 2.0,
        "peak_bytes": 1_234_000_000,
        "commit": "abc",
        "machine": "m",
        "device": "cpu",
        "python": "3.11",
        "versions": {"jax": "1"},
    }
    keep(
        Sweep(spectreg_sin.study("quick"), {cell: CellResult({"answer": 6.0}, record)}),
        tmp_path / "quick/studies",
    )
    write_provenance(tmp_path / "quick")
    written = json.loads((tmp_path / "quick/provenance.json").read_text())["studies"]
    assert written == {
        "spectreg-sin": {
            "seconds": 3.0,
            "cpu seconds": 2.0,
            "peak memory in GB": 1.23,
            "commit": "abc",
            "machine": "m",
            "device": "cpu",
            "python": "3.11",
            "versions": "jax 1",
        }
    }


def test_kept_numbers_are_rounded_where_they_are_many_and_not_too_large(tmp_path):
    (cell,) = spectreg_sin.study("quick").cells
    many = np.full(6000, 1 / 3)
    values = {"large": 1e145 * many, "many": many, "few": many[:9], "none": np.inf * many}
    whole = Sweep(spectreg_sin.study("quick"), {cell: CellResult(values, {})})
    keep(whole, tmp_path)
    found = committed(whole.study, tmp_path)[cell]
    for exact in ("large", "few", "none"):
        np.testing.assert_array_equal(found[exact], values[exact])
    np.testing.assert_array_equal(found["many"], many.astype(np.float32))


def test_figures_are_drawn_from_what_was_kept_alone(tmp_path, capsys):
    (cell,) = spectreg_sin.study("quick").cells
    whole = Sweep(spectreg_sin.study("quick"), {cell: CellResult({"answer": 6.0}, {})})
    keep(whole, tmp_path / "kept/quick/studies")
    out = tmp_path / "out"
    assert main(["--from", str(tmp_path / "kept"), "--out", str(out)], (SIN,)) == 0
    assert pd.read_csv(out / "fake/sin.csv")["answer"].tolist() == [6.0]
    capsys.readouterr()
    assert main(["--from", str(tmp_path), "--out", str(out)], (SIN,)) == 2
    assert "--from must hold what --keep wrote" in capsys.readouterr().err


def test_the_page_has_every_scale_and_its_verdict(tmp_path, capsys):
    folder = tmp_path / "kept"
    lines = {
        "quick": [("rises", "by 1", "2", True, ""), ("falls", "up", "", False, "Too small."),
                  ("turns | once", "no", "", False, "Small data.")],
        "medium": [("falls", "up again", "", False, "It rises.")],
    }  # fmt: skip
    for scale, rows in lines.items():
        path = folder / scale / "fake/line.claims.csv"
        path.parent.mkdir(parents=True)
        names = ["claim", "measured", "paper", "holds", "note"]
        pd.DataFrame(rows, columns=names).to_csv(path, index=False)
    verdicts = {row.claim: row.verdict for row in found(folder, (LINE,))}
    assert verdicts == {
        "rises": "holds", "falls": "does not hold", "turns | once": "not tested at its scale",
    }  # fmt: skip
    page = tmp_path / "claims.md"
    assert main(["--claims", str(page), "--from", str(folder)], (LINE,)) == 0
    assert "3 claims" in capsys.readouterr().out
    text = page.read_text(encoding="utf-8")
    assert "Of 3 claims checked, 1 hold, 1 do not, and 1 were not tested" in text
    assert text.index("## Errata") < text.index("## Fakes")
    assert "| `fake/line` | falls |  | up | up again | *does not hold* | It rises. |" in text
    assert "turns \\| once" in text


def test_what_is_at_the_papers_scale_is_decided_at_quick(tmp_path):
    own = Figure("spectreg/table-7", "SpectReg", "a sine", "tests.paper_figures.fakes:draw_line", 1)
    ours = Figure("fake/ours", "(ours)", "a line", "tests.paper_figures.fakes:draw_line", 1)
    for figure in (own, ours, LINE):
        path = tmp_path / f"quick/{figure.name}.claims.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("claim,measured,paper,holds,note\nfalls,up,,False,why\n")
    verdicts = {row.figure: row.verdict for row in found(tmp_path, (own, ours, LINE))}
    assert verdicts == {
        "spectreg/table-7": "does not hold",
        "fake/ours": "does not hold",
        "fake/line": "not tested at its scale",
    }


# One has stand-ins in it at medium, the other trains there for far fewer steps than the paper.
@pytest.mark.parametrize("name", ["metric/table-5.1", "spectreg/table-6"])
def test_what_medium_has_in_part_is_decided_at_full_alone(name, tmp_path):
    table = Figure(name, "a paper", "rules", "tests.paper_figures.fakes:draw_line", 1)
    for scale, verdict in (("medium", "not tested at its scale"), ("full", "does not hold")):
        for figure in (table, LINE):
            path = tmp_path / f"{scale}/{figure.name}.claims.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("claim,measured,paper,holds,note\nfalls,up,,False,why\n")
        verdicts = {row.figure: row.verdict for row in found(tmp_path, (table, LINE))}
        assert verdicts == {name: verdict, "fake/line": "does not hold"}


def test_three_quarters_of_what_medium_tested_say_how_sure_they_are():
    rows = [
        row
        for row in found(Path(__file__).parents[2] / "docs/results", FIGURES)
        if "medium" in row.held
    ]
    sure = [row for row in rows if has_interval(row.measured["medium"])]
    assert len(rows) > 30
    assert len(sure) >= 0.75 * len(rows)


def test_a_page_of_nothing_is_an_error(tmp_path, capsys):
    with pytest.raises(FileNotFoundError, match="has no claims"):
        write_page(tmp_path / "claims.md", tmp_path, (LINE,))
    assert main(["--claims", str(tmp_path / "claims.md")], (LINE,)) == 2
    assert "--claims needs --from" in capsys.readouterr().err
