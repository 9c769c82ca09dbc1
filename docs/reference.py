"""MkDocs hook: write the API reference of a package from its `__all__`.

A page of the reference says `::: igr.flows` and gets a table of every public name with its first
sentence, and then an entry for each: functions first, then what they return. Left to itself
mkdocstrings looks `igr.flows.compare` up without running Python and finds the file of that name
before the function.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from typing import Any

_PACKAGE = re.compile(r"^::: (igr(?:\.\w+)?)$", flags=re.MULTILINE)


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """Replace every package by its docstring and its public names; called by MkDocs."""
    return _PACKAGE.sub(lambda found: entries(found.group(1)), markdown)


def entries(package_name: str) -> str:
    """What mkdocstrings is to show of a package.

    Args:
        package_name: Such as `igr.flows`, or `igr` itself.

    Returns:
        Markdown: an entry for the package's docstring, a table of its public names, and an entry
        for each that has its place here. The names that `igr` hands on from its subpackages are
        links to the entries there.
    """
    package = importlib.import_module(package_name)
    shown = [_entry(package_name, members="false"), _summary(package_name, package)]
    if package_name == "igr":
        return "\n\n".join(shown)
    for name in sorted(package.__all__, key=lambda name: _rank(getattr(package, name))):
        shown.append(_entry(_path(package_name, package, name),
                            show_root_heading="true", show_root_toc_entry="true",
                            heading=_as_typed(package_name, name), toc_label=name))  # fmt: skip
    return "\n\n".join(shown)


def _summary(package_name: str, package: Any) -> str:
    """A table: each public name, linked, and the first sentence about it."""
    rows = ["| name | |", "|---|---|"]
    for name in sorted(package.__all__, key=lambda name: (_rank(getattr(package, name)), name)):
        thing = getattr(package, name)
        path = _home(thing, name) if package_name == "igr" else _path(package_name, package, name)
        link = f"[`{_as_typed(package_name, name)}`][{path}]"
        if package_name == "igr" and inspect.ismodule(thing):
            link = f"[`igr.{name}`]({_page(thing)}.md)"
        rows.append(f"| {link} | {_first_sentence(thing)} |")
    return "\n".join(rows)


def _rank(thing: Any) -> int:
    """Functions first, then classes, then modules and other things."""
    if inspect.isclass(thing):
        return 2 if issubclass(thing, BaseException) else 1
    return 3 if inspect.ismodule(thing) else 0


def _path(package_name: str, package: Any, name: str) -> str:
    """Where mkdocstrings finds a public name, apart from the file that may bear it too."""
    files = {module.name for module in pkgutil.iter_modules(package.__path__)}
    path = f"{package_name}.{name}"
    if name in files and not inspect.ismodule(getattr(package, name)):
        return f"{path}.{name}"
    return path


def _home(thing: Any, name: str) -> str:
    """The entry, on a subpackage's page, of a name that `igr` hands on."""
    if inspect.ismodule(thing):
        return thing.__name__
    subpackage = ".".join(thing.__module__.split(".")[:2])
    module = importlib.import_module(subpackage)
    return (
        _path(subpackage, module, name) if hasattr(module, "__path__") else f"{subpackage}.{name}"
    )


def _page(module: Any) -> str:
    """The page of a subpackage, beside that of `igr`."""
    return module.__name__.split(".")[1]


def _as_typed(package_name: str, name: str) -> str:
    """The name as users type it: by the shortest way from `igr` that is public."""
    igr = importlib.import_module("igr")
    package = importlib.import_module(package_name)
    if name in igr.__all__ and getattr(igr, name) is getattr(package, name):
        return f"igr.{name}"
    return f"{package_name}.{name}"


def _first_sentence(thing: Any) -> str:
    text = inspect.getdoc(thing) if not isinstance(thing, str | tuple | dict) else ""
    first = re.split(r"\n\n|(?<=\.)\s", text or "", maxsplit=1)[0]
    return " ".join(first.split()).replace("|", r"\|")


def _entry(path: str, **options: str) -> str:
    return f"::: {path}\n    options: {{{', '.join(f'{k}: {v}' for k, v in options.items())}}}"
