"""The page of claims: what the papers say, what was measured at each scale, and the verdict."""

from __future__ import annotations

import csv
import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from analysis.scale import Scale
from paper_figures.figure import Figure

HOLDS, FAILS, UNTESTED = "holds", "does not hold", "not tested at its scale"
_OURS = "(ours)"
# Whose networks, data and steps are the paper's own at every scale, or whose data are generated.
_ALWAYS_AT_SCALE = (
    "igr/1?", "igr/A.[12]", "metric/1.1", "metric/5.[3-9]", "metric/5.1[0-6]", "metric/5.35",
    "spectreg/[23]", "spectreg/table-7", "coherence/5.1",
)  # fmt: skip
# Of which at "medium" a part is that of "quick": the synthetic set and CIFAR-10.
_IN_PART = ("metric/table-*", "metric/5.39")
# Which train at "medium" for a twentieth of the paper's steps or less, with its network and data.
_SHORTER = (
    "spectreg/[15]", "spectreg/table-[1236]", "mgs/[34]", "mgs/A.[2-9]", "mgs/A.1?", "mgs/table-1",
    "mgs/table-A.1",
)  # fmt: skip
_INTERVALS = ("±", "bootstrap", "standard error", "the seeds' spread", " in [")

ERRATA = """\
## Errata

What is wrong as printed, whatever the data:

- **Proposition A.4** of *Implicit gradient regularization*, and Figure A.2 with it: the test
  error of a converged run does not depend on µ. The model is $f(x) = a b x$; every minimum of the
  training loss has $ab = y/x$, so all predict alike at the test point.
- **Table A.1's step** of the same paper is too large to follow the EGR flow from initial point II:
  it times the curvature of $E + \\mu R$ is 9.7, and the first step jumps over the origin.
- **Algorithm 1** of *Regularization of correlated parameter spaces* stops by the distance of the
  vectors of two rounds, which for a negative eigenvalue change their sign in each: it never stops.
  Here it stops by residuals.
- **Remark 2.5** of *Appealing to gradients*: its limits are necessary for the condition of theorem
  2.4, which is sufficient for linear stability but not necessary with more than one parameter.
- **The clocks of discretisation drift**: flows are to be compared at equal time $n h$, not at equal
  numbers of steps.
- **SpectReg's learning rate** for MNIST is printed as 0.1 with Adam, at which nothing is learned;
  the authors' code has 0.001.
"""


@dataclass
class Row:
    """A claim as the page shows it.

    Attributes:
        figure: The name of the figure it is of.
        claim: The statement.
        paper: The paper's own value.
        measured: By scale, what was found.
        held: By scale, whether it bears the claim out.
        note: By scale, why it may not hold.
        at_scale: Whether the smallest scale is the paper's own, or there is no paper.
    """

    figure: str
    claim: str
    paper: str
    measured: dict[str, str] = field(default_factory=dict)
    held: dict[str, bool] = field(default_factory=dict)
    note: dict[str, str] = field(default_factory=dict)
    at_scale: bool = False

    @property
    def verdict(self) -> str:
        """By the largest scale there is; what fails there is not decided where it is a stand-in."""
        scale = [name for name in get_args(Scale) if name in self.held][-1]
        if self.held[scale]:
            return HOLDS
        stand_in = scale == "quick" or (scale == "medium" and _is(self.figure, _IN_PART + _SHORTER))
        return UNTESTED if stand_in and not self.at_scale else FAILS

    @property
    def why(self) -> str:
        """The note of the largest scale."""
        scale = [name for name in get_args(Scale) if name in self.held][-1]
        return self.note.get(scale, "")


def write_page(path: Path, folder: Path, figures: Sequence[Figure]) -> int:
    """Write the page of claims.

    Args:
        path: The Markdown file.
        folder: What `--keep` wrote to: a folder a scale, with `paper/number.claims.csv`.
        figures: The catalogue, for the order and the papers' titles.

    Returns:
        How many claims are on it.

    Raises:
        FileNotFoundError: If there are none.
    """
    rows = found(folder, figures)
    if not rows:
        raise FileNotFoundError(f"{folder} has no claims; python -m paper_figures --keep {folder} "
                                "writes them")  # fmt: skip
    titles = {figure.name: figure.paper for figure in figures}
    counts = {verdict: sum(row.verdict == verdict for row in rows)
              for verdict in (HOLDS, FAILS, UNTESTED)}  # fmt: skip
    scales = [name for name in get_args(Scale) if any(name in row.held for row in rows)]
    larger = "".join(f"{_at_scale(rows, scale)} " for scale in scales if scale != "quick")
    parts = [
        "# Claims\n",
        f"Of {len(rows)} claims checked, {counts[HOLDS]} hold, {counts[FAILS]} do not, and "
        f"{counts[UNTESTED]} were not tested at their scale: they do not hold on small stand-ins "
        "(those of `quick`, of which the tables of the metric rules have some at `medium`) or, "
        "where SpectReg and MGS learn at `medium`, after a twentieth of the paper's steps or less, "
        "which decides nothing about the paper's training. "
        f"{larger}Nothing was tuned until it agreed. This page is made by "
        "`python -m paper_figures --claims docs/claims.md --from docs/results`.\n",
        ERRATA,
    ]
    for paper in dict.fromkeys(titles[row.figure] for row in rows):
        parts.append(f"## {'Ours' if paper == _OURS else paper}\n")
        heads = ("figure", "claim", "the paper", *scales, "verdict", "why")
        parts.append(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
        for row in (row for row in rows if titles[row.figure] == paper):
            cells = [row.claim, row.paper, *(row.measured.get(scale, "") for scale in scales)]
            first, last = f"`{row.figure}`", f"*{row.verdict}*"
            cells = [first, *map(_cell, cells), last, _cell(row.why)]
            parts.append(f"| {' | '.join(cells)} |")
        parts.append("")
    path.write_text("\n".join(parts), encoding="utf-8")
    return len(rows)


def found(folder: Path, figures: Sequence[Figure]) -> list[Row]:
    """The claims of all scales, those of the same words together."""
    rows: dict[tuple[str, str], Row] = {}
    for figure in figures:
        for scale in get_args(Scale):
            path = folder / scale / f"{figure.name}.claims.csv"
            own = figure.paper == _OURS or _is(figure.name, _ALWAYS_AT_SCALE)
            if not path.exists():
                continue
            with path.open(encoding="utf-8", newline="") as file:
                for line in csv.DictReader(file):
                    row = rows.setdefault(
                        (figure.name, line["claim"]),
                        Row(figure.name, line["claim"], line["paper"], at_scale=own),
                    )
                    row.measured[scale] = line["measured"]
                    row.held[scale] = line["holds"] == "True"
                    row.note[scale] = line["note"]
    return list(rows.values())


def _is(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def _at_scale(rows: Sequence[Row], scale: str) -> str:
    """How many were tested at a scale, how they went, and how many say how sure that is."""
    tested = [row for row in rows if scale in row.held]
    held = sum(row.held[scale] for row in tested)
    sure = sum(has_interval(row.measured[scale]) for row in tested)
    return (
        f"At `{scale}` {len(tested)} were tested: {held} hold, and {sure} have an interval over "
        "seeds."
    )


def has_interval(measured: str) -> bool:
    """Whether what was measured says how far seeds or draws move it.

    >>> has_interval("by 1.2 ± 0.3 points"), has_interval("by 1.2 points")
    (True, False)
    """
    return any(sign in measured for sign in _INTERVALS)


def _cell(text: str) -> str:
    return one_line(text).replace("|", "\\|")


def one_line(text: str) -> str:
    r"""The text as Markdown shows it: in one line, nothing in it taken for markup.

    >>> one_line("a < b\n* c")
    'a &lt; b \\* c'
    """
    plain = " ".join(text.split()).replace("<", "&lt;")
    return "".join(f"\\{sign}" if sign in "*_$" else sign for sign in plain)
