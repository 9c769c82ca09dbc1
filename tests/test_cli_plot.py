"""`igr plot`, as a user types it; what is drawn is tested with `igr.plots.monitor`."""

import pytest

from igr.cli import main

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def runs(tmp_path):
    """Two runs, in folders of their own."""
    for name, rows in {"a": "0,9.5,1.9\n10,10.5,2.1\n", "b": "0,4,0.8\n10,5,1\n"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.csv").write_text("step,sharpness,h_sharpness\n" + rows)
    return [str(tmp_path / name / "run.csv") for name in "ab"]


@pytest.fixture
def drawn(monkeypatch):
    """What `igr.plots.monitor` was asked to draw."""
    import igr.plots

    asked, real = [], igr.plots.monitor

    def spy(records, column, **options):
        asked.append((dict(records), column, options))
        return real(records, column, **options)

    monkeypatch.setattr(igr.plots, "monitor", spy)
    return asked


def test_a_run_becomes_a_picture_beside_it(runs, drawn, capsys, tmp_path):
    assert main(["plot", runs[0]]) == 0
    out = tmp_path / "a" / "run.png"
    assert out.read_bytes()[:8] == PNG
    shown = capsys.readouterr().out
    assert shown == f"{out}: h_sharpness, at the last step run 2.1\n"
    [(records, column, options)] = drawn
    assert (list(records), column, options["limit"]) == (["run"], "h_sharpness", 2.0)


def test_several_runs_of_one_column_with_the_limit_of_their_rate(runs, drawn, capsys, tmp_path):
    out = tmp_path / "both.svg"
    options = ["--column", "sharpness", "--learning-rate", "0.2", "--log", "--out", str(out)]
    assert main(["plot", *runs, *options]) == 0
    assert b"<svg" in out.read_bytes()
    assert "a/run.csv 10.5, b/run.csv 5" in capsys.readouterr().out
    [(records, column, given)] = drawn
    assert list(records) == ["a/run.csv", "b/run.csv"]
    assert (column, given["limit"], given["log"]) == ("sharpness", 10.0, True)


def test_a_limit_of_ones_own_may_be_negative(runs, drawn):
    assert main(["plot", runs[0], "--limit", "-1.5"]) == 0
    assert drawn[0][2]["limit"] == -1.5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.csv"], "there is no file none.csv"),
        (["RUN", "--column", "loss"], "column must be among sharpness, h_sharpness; got 'loss'"),
        (["RUN", "RUN"], "must be named once"),
        (["RUN", "--out", "a.gif"], "--out must end in .png, .pdf, .svg"),
        (["RUN", "--out", "nowhere/a.png"], "no folder 'nowhere'"),
        (["RUN", "--learning-rate", "0"], "--learning-rate must be a positive number; got '0'"),
        (["RUN", "--limit", "nan"], "--limit must be a number; got 'nan'"),
        ([], "RUN.csv"),
    ],
)
def test_bad_calls_are_refused_in_one_line(runs, arguments, said, capsys):
    status = main(["plot", *(runs[0] if a == "RUN" else a for a in arguments)])
    out, err = capsys.readouterr()
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_a_file_that_is_no_monitors_is_refused(tmp_path, capsys):
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    assert main(["plot", str(path)]) == 2
    assert "its header does not begin with step" in capsys.readouterr().err
