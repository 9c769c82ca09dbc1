"""The command line: listing, choosing, exit status, errors before any work."""

import os
import subprocess
import sys

import pandas as pd
import pytest

from analysis.studies import study
from analysis.sweep import CellResult, cell_name, code_version, results
from paper_figures.__main__ import main
from paper_figures.catalogue import FIGURES, chosen_figures
from paper_figures.figure import Figure
from paper_figures.needed import studies_needed
from paper_figures.plan import Planned
from tests.paper_figures.test_produce import ERROR, LINE

PLANNED = Figure("fake/planned", "Fakes", "not yet")
COSTLY = Figure(
    "fake/costly", "Fakes", "an hour", "tests.paper_figures.fakes:draw_error", 3600, default=False
)
CONDITIONS = Figure(
    "fake/conditions", "Fakes", "what a study sees", "tests.paper_figures.fakes:draw_conditions", 1
)
FAKES = (LINE, PLANNED, COSTLY)


def test_list_shows_every_figure(capsys):
    assert main(["--list"]) == 0
    shown = capsys.readouterr().out
    for figure in FIGURES:
        assert figure.name in shown
    assert "ready" in shown


def test_list_does_not_wait_for_jax():
    script = (
        "import sys; from paper_figures.__main__ import main; main(['--list']);"
        "sys.exit('jax' in sys.modules or 'matplotlib' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_without_names_the_ready_figures_of_the_default_set_are_drawn(tmp_path, capsys):
    assert main(["--out", str(tmp_path)], FAKES) == 0
    assert sorted(path.name for path in tmp_path.rglob("*.png")) == ["line.png"]
    assert "1 of 1 figures drawn, 1 of 2 claims hold" in capsys.readouterr().out


def test_all_draws_what_is_not_in_the_default_set_too(tmp_path, capsys, monkeypatch):
    to_do = (Planned("long", 4, 3, 90.0), Planned("short", 2, 1, 30.0))
    monkeypatch.setattr("paper_figures.__main__.plan", lambda conditions: to_do)
    assert main(["--all", "--processes", "1", "--out", str(tmp_path)], FAKES) == 1
    shown = capsys.readouterr().out
    assert shown.startswith("4 of 6 cells of 2 studies are to be computed, about 2 min")
    assert "fake/costly could not be drawn" in shown
    assert "fake/planned" not in shown
    assert "1 of 2 figures drawn" in shown
    assert main(["--all", "fake/line"], FAKES) == 2
    assert "leave out --all or the names" in capsys.readouterr().err


def test_a_plan_says_what_every_scale_costs_before_anything_is_drawn(tmp_path, capsys, monkeypatch):
    few = {"mgs-label-noise": "", "spectreg-sin": ""}
    monkeypatch.setattr("paper_figures.plan.STUDIES", few)

    def first_lines(scale):
        given = ["--all", "--scale", scale, "--results", str(tmp_path / scale)]
        main([*given, "--out", str(tmp_path / "out")], (LINE,))
        return " ".join(capsys.readouterr().out.partition("fake/line")[0].split())

    quick = first_lines("quick")
    assert quick.startswith("11 of 11 cells of 2 studies are to be computed, about 4 min on two")
    assert "mgs-label-noise 3 min, spectreg-sin 15 s" in quick
    # Ten networks and regularizers at four levels of ten draws, 400 epochs of 93 batches; ten
    # weights and seeds of 10,000 steps.
    million = 10 * 4 * 10 * 400 * 93 / 1e6
    assert f"2 studies of which no time is known, of {million + 1:.1f} million" in first_lines(
        "full"
    )

    whole = study("spectreg-sin", "full")
    here = tmp_path / "full" / whole.name
    here.mkdir(parents=True)
    results.write(here, cell_name(*whole.cells, code_version(whole.run)), CellResult({"x": 1}))
    again = first_lines("full")
    assert again.startswith("10 of 11 cells")
    assert f"no time is known, of {million:.1f} million" in again


def test_figures_by_name_say_what_they_have_to_compute(tmp_path, capsys, monkeypatch):
    """Of their studies alone, and only where that may take long."""
    monkeypatch.setattr("paper_figures.__main__.produce", lambda *given: [])
    monkeypatch.setattr("paper_figures.__main__.gpus_used", lambda here: "GPUs: none")
    draw = "tests.paper_figures.fakes:draw_from_a_study"
    short, long = (Figure(f"fake/{cost}", "", "", draw, cost) for cost in (15, 90))
    without = Figure("fake/without", "", "", COSTLY.source, 90)

    def said(figure, *given):
        results = ["--results", str(tmp_path / "results"), "--out", str(tmp_path)]
        assert main([figure.name, *results, *given], (short, long, without)) == 0
        return " ".join(capsys.readouterr().out.partition(" Claims ")[0].split())

    assert said(short) == ""
    assert said(long) == (
        "at most 1 of 1 cells of 1 study are to be computed, about 15 s on two cores; the longest: "
        "spectreg-sin 15 s GPUs: none"
    )
    # Three seeds and ten weights of 10,000 steps, of which no time is known.
    for figure in (short, long):
        assert said(figure, "--scale", "medium") == (
            "at most 1 of 1 cells of 1 study are to be computed and 1 study of which no time is "
            "known, of 0.3 million steps of training: spectreg-sin 0.3 GPUs: none"
        )
    assert said(without) == "no study is to be computed; figures take about 2 min on two cores"
    assert said(without, "--scale", "medium") == "no study is to be computed"


def test_what_studies_figures_need_is_read_from_their_code():
    needed = {figure.name: studies_needed([figure]) for figure in FIGURES}
    assert needed["mgs/4"] == ("mgs-robustness",)
    assert needed["igr/1b"] == ("igr-two-parameters",)
    assert needed["metric/table-5.1"] == ("metric-cifar10", "metric-rules")
    assert all(needed.values())
    assert set(studies_needed(FIGURES)) == {name for names in needed.values() for name in names}


def test_studies_are_computed_under_the_conditions_given(tmp_path, monkeypatch):
    def seen(*arguments):
        assert main([*arguments, "--out", str(tmp_path)], (CONDITIONS,)) == 0
        return tuple(pd.read_csv(tmp_path / "fake/conditions.csv").loc[0])

    monkeypatch.setenv("IGR_SCALE", "full")
    monkeypatch.delenv("IGR_ENGINE", raising=False)
    monkeypatch.delenv("IGR_RESULTS", raising=False)
    before = dict(os.environ)
    assert seen() == ("full", "local", "results")
    given = ["--scale", "medium", "--engine", "ray", "--results", str(tmp_path / "kept")]
    assert seen(*given) == ("medium", "ray", str(tmp_path / "kept"))
    assert dict(os.environ) == before


def test_wrong_conditions_are_an_error_before_any_work(tmp_path, monkeypatch, capsys):
    out = ["--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="2"):
        main(["--scale", "huge", *out], FAKES)
    assert "invalid choice: 'huge'" in capsys.readouterr().err
    (tmp_path / "taken").write_text("")
    assert main(["--results", str(tmp_path / "taken"), *out], FAKES) == 2
    assert "--results must be a folder" in capsys.readouterr().err
    monkeypatch.setenv("IGR_ENGINE", "steam")
    assert main(out, FAKES) == 2
    assert "engine must be local, ray; got 'steam'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_exit_status_is_one_when_a_figure_raises(tmp_path, capsys):
    assert main(["--processes", "1", "--out", str(tmp_path)], (ERROR, LINE)) == 1
    shown = capsys.readouterr().out
    assert "fake/error could not be drawn" in shown
    assert "RuntimeError: no such network" in shown
    assert "1 of 2 figures drawn" in shown


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["fake/lime"], "no figure is called 'fake/lime'; close: fake/line"),
        (["FAKE/LINE2"], "close: fake/line"),
        (["zzz"], "no figure is called 'zzz'; --list shows them all"),
        (["fake/line", "fake/planned"], "'fake/planned' is planned and cannot be drawn yet"),
    ],
)
def test_a_wrong_name_is_an_error_before_any_work(names, message, tmp_path, capsys):
    assert main([*names, "--out", str(tmp_path / "out")], FAKES) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_out_must_not_be_a_file(tmp_path, capsys):
    (tmp_path / "taken").write_text("")
    assert main(["--out", str(tmp_path / "taken")], FAKES) == 2
    assert "--out must be a directory" in capsys.readouterr().err


def test_a_name_given_twice_is_drawn_once():
    assert chosen_figures(["fake/line", "fake/line"], FAKES) == [LINE]


def test_a_planned_figure_has_no_drawing_function():
    with pytest.raises(ValueError, match="'fake/planned' is planned"):
        PLANNED.drawing_function()


def test_the_catalogue_is_sound():
    names = [figure.name for figure in FIGURES]
    assert sum(figure.paper != "(ours)" for figure in FIGURES) == 91
    assert len(set(names)) == len(names)
    for figure in FIGURES:
        assert figure.ready == (figure.cost is not None), figure.name
        if figure.ready:
            assert callable(figure.drawing_function())
