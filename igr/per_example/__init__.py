"""Per-example gradients: all of them, or the means of groups, computed one after the other."""

from igr.per_example.gradients import per_example_gradients
from igr.per_example.grouped import grouped_gradients

__all__ = ["grouped_gradients", "per_example_gradients"]
