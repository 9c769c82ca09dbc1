"""The error for invalid input of the command."""

from __future__ import annotations


class BadInput(Exception):
    """Raised for input that the command cannot accept; the text says why."""
