"""The gallery: every picture that was kept as a thumbnail, and a page a paper with its verdicts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from analysis.scale import Scale
from paper_figures.claims_page import FAILS, HOLDS, UNTESTED, Row, found, one_line
from paper_figures.figure import Figure

_BADGES = {HOLDS: "holds", FAILS: "fails", UNTESTED: "untested"}
_MADE = "python -m paper_figures --gallery docs/papers --from docs/results"


def write_gallery(folder: Path, source: Path, figures: Sequence[Figure]) -> int:
    """Write the gallery's pages.

    Args:
        folder: Where they go: `index.md`, and one a paper, called as its figures begin.
        source: What `--keep` wrote to: a folder a scale, with `paper/number.png`, the numbers
            and the claims.
        figures: The catalogue, for the order and the titles.

    Returns:
        How many pictures are on them.

    Raises:
        FileNotFoundError: If no picture was kept.
    """
    kept = {figure.name: at for figure in figures if (at := _largest(source, figure)) is not None}
    if not kept:
        raise FileNotFoundError(
            f"{source} has no pictures; python -m paper_figures --keep {source} writes them"
        )
    rows = found(source, figures)
    by_paper: dict[str, list[Figure]] = {}
    for figure in figures:
        by_paper.setdefault(figure.name.partition("/")[0], []).append(figure)
    folder.mkdir(parents=True, exist_ok=True)
    index = [
        "# Gallery\n",
        f"{len(kept)} of the {len(figures)} figures and tables, each drawn from the results that "
        "are kept in the repository. A picture opens its numbers; a paper's page has the verdict "
        f"on every claim. Made by `{_MADE}`.\n",
    ]
    for paper, its in by_paper.items():
        title = next((f.paper for f in its if f.paper != "(ours)"), paper)
        there = [figure for figure in its if figure.name in kept]
        mine = [row for row in rows if row.figure in {figure.name for figure in its}]
        index += [f"## [{title}]({paper}.md)\n", _counts(mine) + "\n"]
        index.append('<div class="gallery" markdown>\n')
        index += [_picture(figure, kept[figure.name], folder) + "\n" for figure in there]
        index.append("</div>\n")
        page = _page(paper, title, its, kept, mine, folder)
        (folder / f"{paper}.md").write_text(page, encoding="utf-8")
    (folder / "index.md").write_text("\n".join(index), encoding="utf-8")
    return len(kept)


def _page(
    paper: str,
    title: str,
    figures: Sequence[Figure],
    kept: dict[str, Path],
    rows: Sequence[Row],
    folder: Path,
) -> str:
    there = [figure for figure in figures if figure.name in kept]
    parts = [
        f"# {title}\n",
        f"{len(there)} of {len(figures)} figures and tables, drawn from the committed results. "
        f"A picture opens its numbers. [How they were run](../studies/{paper}.md) · "
        "[the paper](../bibliography.md#the-five-papers)\n",
        _counts(rows) + "\n",
    ]
    for figure in there:
        name = figure.name.partition("/")[2]
        parts += [f"## {_heading(name)}\n", f"{figure.title}. `{figure.name}`\n",
                  '<div class="single" markdown>\n', _picture(figure, kept[figure.name], folder),
                  "\n</div>\n"]  # fmt: skip
        for row in rows:
            if row.figure == figure.name:
                parts.append(_claim(row))
        parts.append("")
    missing = [figure for figure in figures if figure.name not in kept]
    if missing:
        parts += ["## Not here\n"]
        for figure in missing:
            state = "can be drawn, its results are not kept" if figure.ready else "planned"
            parts.append(f"- `{figure.name}`: {figure.title} ({state})")
        parts.append("")
    return "\n".join(parts)


def _largest(source: Path, figure: Figure) -> Path | None:
    """The thumbnail of the largest scale at which the figure was drawn."""
    paths = (source / scale / f"{figure.name}.png" for scale in reversed(get_args(Scale)))
    return next((path for path in paths if path.exists()), None)


def _picture(figure: Figure, path: Path, folder: Path) -> str:
    """The thumbnail, which opens the numbers that are drawn in it."""
    numbers = path.with_suffix(".csv")
    if not numbers.exists():
        numbers = path.with_suffix(".csv.gz")
    image, target = (Path(os.path.relpath(p, folder)).as_posix() for p in (path, numbers))
    text = f"{figure.name}: {figure.title}".translate(str.maketrans({"[": "(", "]": ")"}))
    shown = f"![{text}]({image}){{ loading=lazy }}"
    return f"[{shown}]({target})" if numbers.exists() else shown


def _counts(rows: Sequence[Row]) -> str:
    """How many claims have each verdict, as badges."""
    if not rows:
        return "No claim of it is checked yet."
    counts = {verdict: sum(row.verdict == verdict for row in rows) for verdict in _BADGES}
    words = {HOLDS: "hold", FAILS: "do not", UNTESTED: UNTESTED}
    return " ".join(_badge(v, f"{n} {words[v]}") for v, n in counts.items() if n)


def _claim(row: Row) -> str:
    printed = f" The paper: {one_line(row.paper)}." if row.paper else ""
    why = f" {one_line(row.why)}" if row.why and row.verdict != HOLDS else ""
    scale = [name for name in get_args(Scale) if name in row.held][-1]
    return (
        f"- {_badge(row.verdict, row.verdict)} {one_line(row.claim)}.{printed} "
        f"Here ({scale}): {one_line(row.measured[scale])}.{why}"
    )


def _badge(verdict: str, text: str) -> str:
    return f'<span class="verdict {_BADGES[verdict]}">{text}</span>'


def _heading(name: str) -> str:
    """`table-5.1` is called Table 5.1, `5.3` Figure 5.3, and what is ours by its name.

    >>> _heading("table-A.1"), _heading("5.3"), _heading("adam-kept")
    ('Table A.1', 'Figure 5.3', 'Adam kept')
    """
    if name.startswith("table-"):
        return f"Table {name.removeprefix('table-')}"
    if any(letter.isdigit() for letter in name):
        return f"Figure {name}"
    return name.replace("-", " ").capitalize()
