"""The pages of how-tos run as they are printed, from top to bottom."""

import re
from pathlib import Path

import jax
import pytest

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
