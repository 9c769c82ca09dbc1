"""The letters of an argument where the locale is not UTF-8."""

from __future__ import annotations

from typing import Any


def decoded(value: Any) -> Any:
    r"""A text, or a list of them, with the bytes that Python holds in place of letters as UTF-8.

    Anything else is handed on. A path is opened as it came: this is for what is read or shown.

    >>> decoded(b"\xc2\xb5".decode("ascii", "surrogateescape"))
    'µ'
    """
    if isinstance(value, list):
        return [decoded(x) for x in value]
    if not isinstance(value, str):
        return value
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
