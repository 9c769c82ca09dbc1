"""What is wrong with what was typed."""

from __future__ import annotations


class BadInput(Exception):
    """What the user typed cannot be meant; the text says why."""
