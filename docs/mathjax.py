"""MkDocs hook: ship MathJax with the site, so that mathematics is typeset without a network.

MathJax is not kept in this repository: the file is taken from the installed package
`django-static-mathjax`, which holds MathJax as released, and copied beside the pages. The build
with SVG output is one file and needs no fonts.
"""

from __future__ import annotations

import importlib.resources
from typing import Any

from mkdocs.structure.files import File, Files

SCRIPT = "tex-svg-full.js"


def on_files(files: Files, *, config: Any) -> Files:
    """Add MathJax to the files of the site; called by MkDocs."""
    source = importlib.resources.files("mathjax") / "static" / "mathjax" / "es5" / SCRIPT
    files.append(File.generated(config, f"javascripts/{SCRIPT}", content=source.read_bytes()))
    return files


def on_post_page(output: str, **kwargs: Any) -> str:
    """Drop the script without an address that notebooks leave where RequireJS is off."""
    return output.replace('<script src=""></script>', "")
