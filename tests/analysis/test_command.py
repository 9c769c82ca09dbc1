"""`python -m analysis` and the studies it knows."""

import sys
import types
from typing import get_args

import numpy as np
import pytest

import analysis.studies
from analysis.__main__ import main
from analysis.scale import Conditions, Scale, conditions
from analysis.studies import STUDIES, computed, igr_width_and_rate, study
from analysis.sweep import Study, cell_name
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
    assert "no study is called 'nope'; there are: small" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["--results", str(tmp_path / "file")]) == 2
    assert "--results must be a folder" in capsys.readouterr().err
    monkeypatch.setenv("IGR_SCALE", "huge")
    assert main([]) == 2
    assert "scale must be quick, medium, full; got 'huge'" in capsys.readouterr().err


def test_only_the_cells_wanted_are_computed(small, tmp_path, monkeypatch):
    monkeypatch.setenv("IGR_RESULTS", str(tmp_path))
    swept = computed("small", only=lambda cell: cell.n == 2)
    assert list(swept.results) == [Cell(2)]
    assert swept.computed == 1
    assert computed("small").computed == 1


def test_conditions_come_from_the_environment(small, tmp_path, monkeypatch):
    assert conditions() == Conditions()
    monkeypatch.setenv("IGR_SCALE", "full")
    monkeypatch.setenv("IGR_RESULTS", str(tmp_path))
    assert conditions() == Conditions("full", "local", tmp_path)
    assert computed("small").computed == 2
    small(Cell(3, wrong=True))
    with pytest.raises(RuntimeError, match=r"1 cells of small failed:(.|\n)*no powers of 3"):
        computed("small")


@pytest.mark.parametrize("scale", get_args(Scale))
@pytest.mark.parametrize("name", STUDIES)
def test_every_study_has_cells_with_names_of_their_own(name, scale):
    cells = study(name, scale).cells
    assert len({cell_name(cell, "") for cell in cells}) == len(cells) > 0


def test_the_list(capsys):
    assert main(["--list"]) == 0
    assert "igr-width-and-rate: 3 cells at scale quick" in capsys.readouterr().out


@pytest.mark.slow
def test_igr_width_and_rate_on_a_small_cell():
    cell = igr_width_and_rate.Cell("digits", 20, (0.05, 0.2), (0, 1), 400, 4, depth=2)
    values = igr_width_and_rate.run(cell)
    assert values["R"].shape == (2, 2, 5)
    assert values["parameters"] == 64 * 20 + 20 + 20 * 20 + 20 + 20 * 10 + 10
    assert (values["train_loss"][..., -1] < values["train_loss"][..., 0] / 2).all()
    assert np.all(values["R"] > 0)
