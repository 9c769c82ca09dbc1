"""How the rules of the dissertation are drawn: a colour and a line for each."""

from __future__ import annotations

from paper_figures import style
from paper_figures.metric.runs import THEIRS

LOOKS: dict[str, tuple[str, str]] = {
    "SGD small": (style.BLACK, "--"),
    "SGD large": (style.BLACK, "-"),
    "Metric small": (style.RED, "--"),
    "Metric large": (style.RED, "-"),
    "L2": (style.BLUE, "-"),
    "Selective L2": (style.GREEN, "-"),
    "L2 Stopped": (style.ORANGE, "-"),
    "L2 Stopped Selective": (style.PURPLE, "-"),
}

assert tuple(LOOKS) == THEIRS  # the rules of the dissertation, in its order
