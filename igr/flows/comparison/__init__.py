"""A run beside the flows it may follow: what `igr.compare` returns, and what it is made of."""

from igr.flows.comparison.result import Comparison

__all__ = ["Comparison"]
