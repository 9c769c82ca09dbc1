"""The `igr` command as a process: what it imports, its terminal, its readers, an interrupt."""

import subprocess
import sys

import pytest


def run_process(arguments, before="", **options):
    script = f"import sys; from igr.cli import main; {before}\nsys.exit(main({arguments!r}))"
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, timeout=60, check=False, **options
    )


def test_derive_does_not_wait_for_jax():
    check = "assert not {'jax', 'optax', 'diffrax', 'equinox', 'scipy'} & set(sys.modules)"
    before = f"main(['derive', 'heavy_ball', '--order', '2']); {check}"
    assert run_process(["derive", "gradient_descent", "--order", "0"], before).returncode == 0


def test_a_terminal_without_unicode():
    environment = {"PYTHONIOENCODING": "ascii", "PATH": ""}
    done = run_process(["derive", "gradient_descent", "--order", "1"], env=environment)
    assert done.returncode == 2
    assert done.stderr.strip() == (
        b"igr: this terminal cannot show the result: use --format latex, or PYTHONIOENCODING=utf-8"
    )
    done = run_process(
        ["derive", "gradient_descent", "--order", "1", "--format", "latex"], env=environment
    )
    assert done.returncode == 0


def test_python_m_igr_and_the_version():
    done = subprocess.run(
        [sys.executable, "-m", "igr", "--version"], capture_output=True, check=True, timeout=60
    )
    assert done.stdout.split()[0] == b"igr"


def test_an_interrupt_ends_in_one_line():
    stop = (
        "import igr.cli as c; c._derive = lambda options: (_ for _ in ()).throw(KeyboardInterrupt)"
    )
    done = run_process(["derive", "gd"], before=stop)
    assert (done.returncode, done.stderr) == (130, b"igr: interrupted\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["derive", "gradient_descent", "--order", "9"],
        ["derive", "--help"],
        pytest.param(["methods"], marks=pytest.mark.slow),
        pytest.param(["--version"], marks=pytest.mark.slow),
    ],
)
def test_a_reader_that_stops_early(arguments):
    close = "import os; r, w = os.pipe(); os.close(r); os.dup2(w, 1)"
    done = run_process(arguments, before=close)
    assert (done.returncode, done.stderr) == (0, b"")
