"""MkDocs hook: write the API reference of a subpackage from its `__all__`.

A page of the reference says `::: igr.flows` and gets an entry for every public name. Left to
itself mkdocstrings looks `igr.flows.compare` up without running Python and finds the file of that
name before the function.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from typing import Any

_PACKAGE = re.compile(r"^::: (igr\.\w+)$", flags=re.MULTILINE)


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """Replace every package by its docstring and its public names; called by MkDocs."""
    return _PACKAGE.sub(lambda found: entries(found.group(1)), markdown)


def entries(package_name: str) -> str:
    """What mkdocstrings is to show of a package.

    Args:
        package_name: Such as `igr.flows`.

    Returns:
        Markdown, an entry for the package's docstring and one a public name.
    """
    package = importlib.import_module(package_name)
    files = {module.name for module in pkgutil.iter_modules(package.__path__)}
    shown = [_entry(package_name, members="false")]
    for name in package.__all__:
        path = f"{package_name}.{name}"
        if name in files and not inspect.ismodule(getattr(package, name)):
            path = f"{path}.{name}"
        shown.append(_entry(path, show_root_heading="true", show_root_toc_entry="true",
                            heading=f"{package_name.removeprefix('igr.')}.{name}",
                            toc_label=name))  # fmt: skip
    return "\n\n".join(shown)


def _entry(path: str, **options: str) -> str:
    return f"::: {path}\n    options: {{{', '.join(f'{k}: {v}' for k, v in options.items())}}}"
