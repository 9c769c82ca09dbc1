"""How the figures look: colours that colour-blind readers can tell apart, sizes of a column."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.figure import Figure as Picture
from matplotlib.patches import Patch

# Okabe and Ito's palette, https://jfly.uni-koeln.de/color/
BLACK = "#000000"
ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
YELLOW = "#F0E442"
BLUE = "#0072B2"
RED = "#D55E00"
PURPLE = "#CC79A7"
GREY = "#8C8C8C"

COLUMN = 3.4  # inches; the width of one column of a two-column paper
PAGE = 7.0

_SETTINGS: dict[Any, Any] = {
    "figure.dpi": 100,
    "savefig.dpi": 240,
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "lines.linewidth": 1.4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=[BLUE, RED, GREEN, ORANGE, PURPLE, SKY, BLACK, YELLOW]),
    "legend.frameon": False,
    "mathtext.fontset": "cm",
    "pdf.fonttype": 42,
}


@contextmanager
def paper_style() -> Iterator[None]:
    """Draw with the settings of the papers' figures, whatever the user's own are."""
    # It remarks on the dates of DejaVu's own files for every PDF.
    logging.getLogger("fontTools").setLevel(logging.ERROR)
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def picture(width: float = COLUMN, height: float = 2.6) -> Picture:
    """An empty matplotlib figure, `width` by `height` inches, belonging to no window."""
    return Picture(figsize=(width, height), layout="constrained")


def band(label: str) -> Patch:
    """What stands in a legend for a shaded band of any colour."""
    return Patch(color=GREY, alpha=0.3, linewidth=0, label=label)
