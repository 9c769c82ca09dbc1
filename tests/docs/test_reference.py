"""Every public name has its place in the API reference."""

import importlib
import pkgutil
import re
import runpy
from pathlib import Path

import pytest

import igr

DOCS = Path(__file__).parents[2] / "docs"
SUBPACKAGES = [
    module.name
    for module in pkgutil.iter_modules(igr.__path__)
    if module.ispkg and module.name not in ("cli", "compiled", "meshes", "progress")  # inner ones
]


@pytest.mark.parametrize("subpackage", SUBPACKAGES)
def test_every_subpackage_has_a_page(subpackage):
    page = (DOCS / "api" / f"{subpackage}.md").read_text()
    assert f"::: igr.{subpackage}\n" in page
    assert f"api/{subpackage}.md" in (DOCS.parent / "mkdocs.yml").read_text()


@pytest.mark.parametrize("subpackage", SUBPACKAGES)
def test_every_public_name_has_an_entry_that_is_the_thing_itself(subpackage):
    hook = runpy.run_path(str(DOCS / "reference.py"))
    page = hook["on_page_markdown"](f"# Title\n\n::: igr.{subpackage}\n")
    _, *entries = re.findall(r"^::: (\S+)$", page, flags=re.MULTILINE)
    package = importlib.import_module(f"igr.{subpackage}")
    shown = [pkgutil.resolve_name(entry) for entry in entries]
    public = [getattr(package, name) for name in package.__all__]
    assert sorted(map(id, shown)) == sorted(map(id, public))
    assert all(f"igr.{subpackage}.{name}`]" in page or f"`igr.{name}`]" in page
               for name in package.__all__)  # fmt: skip


def test_the_page_of_igr_names_everything_that_igr_hands_on():
    hook = runpy.run_path(str(DOCS / "reference.py"))
    page = hook["on_page_markdown"]((DOCS / "api" / "igr.md").read_text())
    for name in igr.__all__:
        assert f"[`igr.{name}`]" in page
