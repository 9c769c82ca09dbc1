"""Names of methods that show their settings, and follow when symbols are given numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sympy

from igr.backward_error.algebra.taylor import exact


class Name(str):
    """A method's printed name: a label with its settings, such as "heavy ball (beta = 9/10)".

    Args:
      label: what the method is called, such as "heavy ball".
      settings: its parameters by name, those that are zero by default left out.
      suffix: text after the settings.

    >>> beta = sympy.Symbol("beta")
    >>> name = Name("heavy ball", {"beta": beta})
    >>> print(name, "|", name.subs({beta: sympy.Rational(9, 10)}))
    heavy ball (beta = beta) | heavy ball (beta = 9/10)
    """

    label: str
    settings: dict[str, Any]  # expressions, and tuples of them
    suffix: str

    def __new__(cls, label: str, settings: Mapping[str, Any] | None = None, suffix: str = ""):
        """Builds the text `label (key = value, ..)suffix` and remembers its parts."""
        settings = dict(settings or {})
        inside = ", ".join(f"{key} = {value}" for key, value in settings.items())
        self = super().__new__(cls, f"{label} ({inside}){suffix}" if inside else label + suffix)
        self.label, self.settings, self.suffix = label, settings, suffix
        return self

    def __getnewargs__(self):
        return self.label, self.settings, self.suffix

    def subs(self, values: Mapping[sympy.Symbol, Any]) -> Name:
        """The same name with these values in place of the symbols in its settings."""
        settings = {key: value.subs(values) for key, value in self.settings.items()}
        return Name(self.label, settings, self.suffix)

    def followed_by(self, text: str) -> Name:
        """The same name with `text` appended, such as ", gradient part"."""
        return Name(self.label, self.settings, self.suffix + text)


def named(name: str) -> Name:
    """The text as a `Name`: unchanged if it is one, otherwise a label without settings."""
    return name if isinstance(name, Name) else Name(name)


def numbers_for(
    parameters: tuple[sympy.Symbol, ...], values: Mapping[Any, Any]
) -> dict[sympy.Symbol, sympy.Expr]:
    """The values a user gave for symbols, as a dictionary from symbol to exact expression.

    `values` may be keyed by symbols or by their names.

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
