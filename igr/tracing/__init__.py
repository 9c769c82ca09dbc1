"""From an optax optimizer to its description: traced once, and read primitive by primitive."""

from igr.tracing.reading import Reading, read_optimizer
from igr.tracing.unreadable import UnreadableOptimizerError

__all__ = ["Reading", "UnreadableOptimizerError", "read_optimizer"]
