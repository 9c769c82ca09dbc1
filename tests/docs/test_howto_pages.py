"""The pages of how-tos run as they are printed, from top to bottom."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

TASKS = ("modified_loss", "egr_adamw", "layers")
PAGES = sorted((Path(__file__).parents[2] / "docs" / "howto").glob("*.md"))


@pytest.fixture(autouse=True)
def _as_a_reader_has_it():
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", before)


def blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_runs(page, capsys):
    code = "\n".join(blocks(page))
    exec(compile(code, page.name, "exec"), {"__name__": "page"})
    assert "print(" not in code or capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_is_in_the_site_and_parses(page):
    site = Path(__file__).parents[2] / "mkdocs.yml"
    assert f"howto/{page.name}" in site.read_text(encoding="utf-8")
    for code in blocks(page):
        compile(code, page.name, "exec")


def in_short(page: str) -> str:
    """The one block under the heading "In short"."""
    [path] = [path for path in PAGES if path.stem == page]
    section = re.search(r"## In short\n(.*?)\n## ", path.read_text("utf-8"), flags=re.DOTALL)
    assert section is not None
    [code] = re.findall(r"```python\n(.*?)```", section[1], flags=re.DOTALL)
    return code


@pytest.mark.parametrize("task", TASKS)
def test_a_task_takes_at_most_fifteen_lines(task):
    lines = [line for line in in_short(task).splitlines() if line.strip()]
    assert 5 < len(lines) <= 15
    assert all(len(line) <= 100 for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_task_is_done_by_copying_its_lines(task, tmp_path):
    """In a process of its own, away from the repository, as a stranger would.

    With `IGR_FRESH_PYTHON` in the environment that it names, in which igr alone was installed.
    """
    python = os.environ.get("IGR_FRESH_PYTHON", sys.executable)
    away = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    if python != sys.executable:
        away.pop("PYTHONPATH", None)
    done = subprocess.run(
        [python, "-c", in_short(task)], cwd=tmp_path, env=away, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    checked = {
        "modified_loss": r"order 1: distance at the end (\S+), ",
        "egr_adamw": r"mu 0.1: held out (\S+), h sharpness",
        "layers": r"eigenvalues \[\s*(\S+) ",
    }
    found = re.search(checked[task], done.stdout)
    assert found is not None, done.stdout
    assert 0 < float(found[1]) < 10


@pytest.mark.slow
def test_without_a_copy_nnx_refuses_as_the_page_says():
    nnx = pytest.importorskip("flax.nnx")
    from flax.errors import TraceContextError

    page = (PAGES[0].parent / "loops.md").read_text(encoding="utf-8")
    assert "`TraceContextError`" in page
    norm = nnx.BatchNorm(3, rngs=nnx.Rngs(0))
    graph, params, rest = nnx.split(norm, nnx.Param, ...)
    x = jax.numpy.arange(6.0).reshape(2, 3)

    def loss(params, **copy):
        return nnx.merge(graph, params, rest, **copy)(x).sum()

    with pytest.raises(TraceContextError):
        jax.grad(loss)(params)
    assert jax.tree.leaves(jax.grad(lambda p: loss(p, copy=True))(params))
