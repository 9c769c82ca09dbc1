"""Runs beside the flows they may follow: what `igr.compare` returns, and its parts."""

from igr.flows.comparison.result import Comparison

__all__ = ["Comparison"]
