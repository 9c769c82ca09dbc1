"""The one error of an optimizer that cannot be read."""

from __future__ import annotations


class UnreadableOptimizerError(ValueError):
    """An optimizer, or a part of it, that has no description; the message says why and what to do.

    Nothing is guessed: where a reading would be wrong, or holds only sometimes, there is none.
    """


class KinkError(UnreadableOptimizerError):
    """An elementwise rule with a jump or a kink, which may be smoothed."""
