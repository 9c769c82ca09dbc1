"""MkDocs hook: every tutorial can be had as a notebook, made from its `.py` file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jupytext


def on_page_content(html: str, *, page: Any, **kwargs: Any) -> str:
    """Add the link to the notebook on top of a tutorial."""
    source = Path(page.file.src_uri)
    if source.suffix != ".py":
        return html
    link = f'<a href="../{source.stem}.ipynb" download>Download as a notebook</a>'
    return f'<p class="notebook">{link}</p>\n{html}'


def on_post_build(*, config: Any) -> None:
    """Write the notebooks beside the pages."""
    for source in sorted(Path(config.docs_dir, "tutorials").glob("*.py")):
        notebook = Path(config.site_dir, "tutorials", f"{source.stem}.ipynb")
        jupytext.write(jupytext.read(source), notebook)
