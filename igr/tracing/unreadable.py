"""The error of an optimizer that cannot be read."""

from __future__ import annotations


class UnreadableOptimizerError(ValueError):
    """Raised for an optimizer that has no description; the message says why and what to do.

    Nothing is guessed: a reading that would be wrong, or would hold only sometimes, is refused.
    """


class KinkError(UnreadableOptimizerError):
    """Raised for an elementwise rule with a jump or a kink, which may be smoothed."""
