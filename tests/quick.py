"""Which cases of a long list run by default; the others wait for `pytest -m slow`."""

from collections.abc import Iterable, Mapping
from typing import Any

import pytest


def quick(cases: Mapping[str, Any] | Iterable[str], *names: str) -> list[Any]:
    """Parameters by their names, of which all but the named ones are slow.

    Args:
        cases: Name -> parameter, or names alone.
        *names: Those that show at once that something broke; all of them show what.
    """
    values = cases if isinstance(cases, Mapping) else {name: name for name in cases}
    assert set(names) <= set(values), set(names) - set(values)
    return [
        pytest.param(value, id=name, marks=() if name in names else pytest.mark.slow)
        for name, value in values.items()
    ]
