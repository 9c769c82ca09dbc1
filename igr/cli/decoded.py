"""Decodes command-line arguments where the locale is not UTF-8."""

from __future__ import annotations

from typing import Any


def decoded(value: Any) -> Any:
    r"""A text, or list of texts, with the bytes that Python escaped in it decoded as UTF-8.

    Any other value is returned unchanged. Paths to open must not be decoded: this is for text that
    is parsed or shown.

    >>> decoded(b"\xc2\xb5".decode("ascii", "surrogateescape"))
    'µ'
    """
    if isinstance(value, list):
        return [decoded(x) for x in value]
    if not isinstance(value, str):
        return value
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
