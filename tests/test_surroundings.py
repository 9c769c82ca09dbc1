"""The commands where a notebook has set matplotlib's backend, and where the locale is not UTF-8."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
BACKENDS = {
    "of a notebook": {"MPLBACKEND": "module://matplotlib_inline.backend_inline"},
    "of a notebook that is not installed": {"MPLBACKEND": "module://nowhere"},
    "of no name": {"MPLBACKEND": "nonsense"},
    "of a window": {"MPLBACKEND": "TkAgg", "DISPLAY": ""},
    "and a locale of ASCII": {"MPLBACKEND": "agg", **ASCII},
}


def run(arguments, surroundings):
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, env=os.environ | surroundings,
        capture_output=True, timeout=200, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", BACKENDS)
def test_pictures_are_drawn(name, tmp_path):
    done = run(["-m", "paper_figures", "igr/1a", "--out", tmp_path / "out"], BACKENDS[name])
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    written = {path.suffix: path for path in (tmp_path / "out" / "igr").iterdir()}
    assert written[".png"].read_bytes()[:4] == b"\x89PNG"
    written[".csv"].read_bytes().decode("utf-8")
    record = tmp_path / "run.csv"
    record.write_text("step,sharpness,λ µ\n0,1,2\n5,2,3\n", encoding="utf-8")
    done = run(["-m", "igr", "plot", record], BACKENDS[name])
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert (tmp_path / "run.png").read_bytes()[:4] == b"\x89PNG"


def test_a_picture_of_what_the_terminal_cannot_show(tmp_path):
    """It is drawn, and what is said of it is legible."""
    record = tmp_path / "µ.csv"
    record.write_text("step,λ\n0,1\n5,2\n", encoding="utf-8")
    for surroundings in (ASCII, {"PYTHONIOENCODING": "ascii"}):
        done = run(["-m", "igr", "plot", record, "--column", "λ"], surroundings)
        assert done.returncode == 0, done.stderr.decode()[-2000:]
        assert b"at the last step" in done.stdout
        assert b"\\u03bb" in done.stdout
        picture = tmp_path / "µ.png"
        assert picture.read_bytes()[:4] == b"\x89PNG"
        picture.unlink()


def test_formulas_are_read_as_utf_8():
    loss = ["derive", "gradient_descent", "--loss", "(µ-1)^2*y^2/2", "--params", "µ,y"]
    done = run(["-m", "igr", *loss, "--format", "latex"], ASCII)
    assert (done.returncode, done.stderr) == (2, b"igr: this terminal cannot show the result: "
        b"use PYTHONIOENCODING=utf-8\n")  # fmt: skip
    done = run(["-m", "igr", *loss], ASCII | {"PYTHONIOENCODING": "utf-8"})
    assert done.returncode == 0, done.stderr
    assert "μ' = -y² (μ - 1)" in done.stdout.decode("utf-8")


def test_records_are_utf_8(tmp_path):
    script, record = tmp_path / "script.py", tmp_path / "run.csv"
    script.write_text(
        "import sys, igr, jax.numpy as jnp\n"
        "for step in range(2):\n"
        "    watch = igr.Monitor({'λ': lambda p, b: p.sum()}, csv=sys.argv[1], resume=step > 0)\n"
        "    watch(jnp.ones(2), jnp.ones((3, 1)), step=step)\n"
        "print(list(igr.plots.read_record(sys.argv[1])) == ['step', 'λ'])\n",
        encoding="utf-8",
    )
    done = run([script, record], ASCII | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert done.stdout.strip() == b"True"
    assert record.read_text("utf-8").splitlines() == ["step,λ", "0,2.0", "1,2.0"]
