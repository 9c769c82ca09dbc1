"""Griffe extension: show the doctests of a docstring as the Python sessions they are.

Our docstrings put their example after the sections, without a heading, where Markdown would take
`>>>` for a quotation in a quotation in a quotation.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

# A prompt, and everything after it up to the next empty line.
_SESSION = re.compile(r"^>>> .*(?:\n.+)*", flags=re.MULTILINE)


def fenced(docstring: str) -> str:
    """The docstring with a fence around every session that starts at the margin."""
    return _SESSION.sub(lambda session: f"```pycon\n{session.group()}\n```", docstring)


class FenceDoctests(Extension):
    """Fence the doctests of everything that has a docstring."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
