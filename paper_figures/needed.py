"""Which studies figures are drawn from, read from their code."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path

from analysis.studies import STUDIES
from analysis.sweep.reached import reached
from paper_figures.figure import Figure

# `computed("name", ...)` in a syntax tree that is written as text.
_COMPUTED = re.compile(r"id='computed'[^']*args=\[Constant\(value='([^']*)'")


def studies_needed(figures: Iterable[Figure]) -> tuple[str, ...]:
    """The studies that figures ask for, in the order of `STUDIES`.

    Those that their functions can reach by name, whatever their arguments: a figure may need fewer
    of them, or a part of their cells.

    Args:
        figures: All ready.

    >>> studies_needed([Figure("mgs/4", "", "", "paper_figures.mgs.robustness:figure_4")])
    ('mgs-robustness',)
    """
    asked: set[str] = set()
    for source in {figure.source for figure in figures if figure.source is not None}:
        module, function = source.split(":")
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            continue
        for text in reached(module, Path(spec.origin), function, ("paper_figures",)).values():
            asked.update(_COMPUTED.findall(text))
    return tuple(name for name in STUDIES if name in asked)
