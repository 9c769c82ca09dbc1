"""Every public name has its place in the API reference."""

import importlib
import pkgutil
from pathlib import Path

import pytest

import igr

DOCS = Path(__file__).parents[2] / "docs"
SUBPACKAGES = [
    module.name
    for module in pkgutil.iter_modules(igr.__path__)
    if module.ispkg and not module.name.startswith("_")
]


@pytest.mark.parametrize("subpackage", SUBPACKAGES)
def test_every_subpackage_has_a_page(subpackage):
    page = (DOCS / "api" / f"{subpackage}.md").read_text()
    assert f"::: igr.{subpackage}\n" in page
    assert f"api/{subpackage}.md" in (DOCS.parent / "mkdocs.yml").read_text()


@pytest.mark.parametrize("subpackage", SUBPACKAGES)
def test_functions_named_like_their_file_are_on_it(subpackage):
    """Where a file and its function share a name, the reference finds the file first."""
    package = importlib.import_module(f"igr.{subpackage}")
    files = {module.name for module in pkgutil.iter_modules(package.__path__)}
    page = (DOCS / "api" / f"{subpackage}.md").read_text()
    for name in set(package.__all__) & files:
        if callable(getattr(package, name)):
            entry = f"::: igr.{subpackage}.{name}.{name}\n"
            assert entry in page, f"add {entry.strip()!r} to docs/api/{subpackage}.md"
