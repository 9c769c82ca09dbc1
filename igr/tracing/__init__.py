"""Reads an optax optimizer: traces it once and describes its memories and its rule."""

from igr.tracing.options import ReadingOptions
from igr.tracing.reading import Reading, read_optimizer
from igr.tracing.unreadable import UnreadableOptimizerError

__all__ = ["Reading", "ReadingOptions", "UnreadableOptimizerError", "read_optimizer"]
