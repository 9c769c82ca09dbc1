"""MkDocs hook: every tutorial can be had as a notebook, made from its `.py` file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jupytext

# What a bar shows each time it moves; a terminal shows the last of it, a page all.
_BAR = re.compile(r"[^\n|]*\d%\|[^\n|]*\|[^\n]*")
_OUTPUT = re.compile(
    r'<div class="jp-OutputArea-child">\s*<div class="jp-OutputPrompt jp-OutputArea-prompt"></div>'
    r'\s*<div [^>]*data-mime-type="application/vnd\.jupyter\.stderr"[^>]*>\s*'
    r"<pre>([^<]*)</pre>\s*</div>\s*</div>\s*"
)


def on_page_content(html: str, *, page: Any, **kwargs: Any) -> str:
    """Add the link to the notebook on top of a tutorial, and leave bars of progress out."""
    source = Path(page.file.src_uri)
    if source.suffix != ".py":
        return html
    html = _OUTPUT.sub(lambda shown: shown[0] if _BAR.sub("", shown[1]).strip() else "", html)
    link = f'<a href="../{source.stem}.ipynb" download>Download as a notebook</a>'
    return f'<p class="notebook">{link}</p>\n{html}'


def on_post_build(*, config: Any) -> None:
    """Write the notebooks beside the pages."""
    for source in sorted(Path(config.docs_dir, "tutorials").glob("*.py")):
        notebook = Path(config.site_dir, "tutorials", f"{source.stem}.ipynb")
        jupytext.write(jupytext.read(source), notebook)
