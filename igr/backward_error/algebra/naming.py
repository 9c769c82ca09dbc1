"""The name of a method, which follows its parameters when they are given numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sympy

from igr.backward_error.algebra.taylor import exact


class Name(str):
    """Text that remembers which parameters stand in it.

    Args:
      label: what the method is called, such as "heavy ball".
      settings: its parameters by name, those that are zero by default left out.
      suffix: what stands behind the settings.

    >>> beta = sympy.Symbol("beta")
    >>> name = Name("heavy ball", {"beta": beta})
    >>> print(name, "|", name.subs({beta: sympy.Rational(9, 10)}))
    heavy ball (beta = beta) | heavy ball (beta = 9/10)
    """

    label: str
    settings: dict[str, Any]  # expressions, and tuples of them
    suffix: str

    def __new__(cls, label: str, settings: Mapping[str, Any] | None = None, suffix: str = ""):
        """A label with the settings that tell it from others of its kind."""
        settings = dict(settings or {})
        inside = ", ".join(f"{key} = {value}" for key, value in settings.items())
        self = super().__new__(cls, f"{label} ({inside}){suffix}" if inside else label + suffix)
        self.label, self.settings, self.suffix = label, settings, suffix
        return self

    def __getnewargs__(self):
        return self.label, self.settings, self.suffix

    def subs(self, values: Mapping[sympy.Symbol, Any]) -> Name:
        """The name with values for symbols."""
        settings = {key: value.subs(values) for key, value in self.settings.items()}
        return Name(self.label, settings, self.suffix)

    def followed_by(self, text: str) -> Name:
        """The name of a part of what has this name."""
        return Name(self.label, self.settings, self.suffix + text)


def named(name: str) -> Name:
    """Any text as a name."""
    return name if isinstance(name, Name) else Name(name)


def numbers_for(
    parameters: tuple[sympy.Symbol, ...], values: Mapping[Any, Any]
) -> dict[sympy.Symbol, sympy.Expr]:
    """What a user gives for symbols, by the symbol: keys may be names, floats become exact.

    Raises:
      ValueError: for a symbol that is not among the parameters.
    """
    by_name = {s.name: s for s in parameters}
    found = {}
    for key, value in values.items():
        symbol = by_name.get(getattr(key, "name", key))
        if symbol is None:
            raise ValueError(
                f"the equation has no symbol {key!r}: it has {', '.join(by_name) or 'none'}"
            )
        found[symbol] = exact(value, symbol.name)
    return found
