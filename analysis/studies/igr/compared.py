"""A run beside its flows, as several studies lay them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

import igr
from analysis.data import Classification, digits
from analysis.data.examples import take


def compared(*arguments: Any, **options: Any) -> igr.Comparison:
    """`igr.compare`, silent where a flow stops: its distances, infinite from there on, say so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", igr.FlowStopped)
        return igr.compare(*arguments, **options)


def first_digits(examples: int) -> Classification:
    """The first of scikit-learn's digits."""
    return take(digits(), np.arange(examples))
