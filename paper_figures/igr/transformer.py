"""Ours: a transformer trained by clipped and scheduled AdamW, and the flows beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis.scale import Conditions
from analysis.studies import computed
from analysis.studies.igr.transformer import FLOWS
from paper_figures import style
from paper_figures.figure import Claim, Drawing
from paper_figures.igr.relu import LINES

TRUSTED = 0.3


def figure_transformer(conditions: Conditions) -> Drawing:
    """The distance from each flow by step, of the way travelled, and h |F1|/|F0|."""
    results = computed("igr-transformer", conditions).results
    table = pd.concat([_table(cell, seen) for cell, seen in results.items()], ignore_index=True)
    peaks = sorted(table["peak"].unique())

    picture = style.picture(style.PAGE, 2.6)
    panels = picture.subplots(1, len(peaks) + 1)
    for axes, peak in zip(panels, peaks, strict=False):
        rows = table[(table["peak"] == peak) & (table["travelled"] > 0)]
        for label, colour, line in LINES.values():
            axes.plot(rows["step"], rows[label] / rows["travelled"], line, color=colour,
                      label=label)  # fmt: skip
        axes.set(yscale="log", title=f"peak rate {peak:g}", xlabel="step after the warm-up")
    panels[0].set_ylabel("distance,\nof the way travelled")
    panels[0].legend()
    for peak, colour in zip(peaks, (style.GREEN, style.PURPLE), strict=False):
        rows = table[(table["peak"] == peak) & (table["correction"] > 0)]
        panels[-1].plot(rows["step"], rows["correction"], color=colour, label=f"{peak:g}")
    top = max(2 * TRUSTED, 1.2 * float(table["correction"].max()))
    panels[-1].axhspan(TRUSTED, top, color=style.GREY, alpha=0.2, linewidth=0)
    panels[-1].set(
        yscale="log", ylim=(None, top), xlabel="step after the warm-up", title="$h\\,|F_1|/|F_0|$"
    )
    panels[-1].legend(title="grey: not trusted")
    return Drawing(picture, table, tuple(_claims(table)))


def _table(cell: Any, seen: Any) -> pd.DataFrame:
    columns = {"peak": cell.learning_rate, "clip": cell.clip}
    along = ("step", "loss", "slope", "travelled", "correction", "remainder", "trusted")
    columns |= {name: seen[name] for name in along}
    columns |= {LINES[p][0]: d for p, d in zip(FLOWS, seen["distance"], strict=True)}
    return pd.DataFrame(columns)


def _claims(table: pd.DataFrame) -> list[Claim]:
    ends = table[table["step"] == table["step"].max()].sort_values("peak")
    small = ends.iloc[0]
    clipped = [float(np.mean(part["slope"] > part["clip"])) for _, part in table.groupby("peak")]
    carried = (ends["differences"] / ends["order 0"]).to_numpy()
    trust = [float(part["trusted"].mean()) for _, part in table.groupby("peak")]
    return [
        Claim(
            "with the small rate the flow of order 1 ends at least twice as close to the run as "
            "that of order 0",
            f"{small['order 0'] / small['order 1']:.3g} times as close",
            bool(2 * small["order 1"] <= small["order 0"]),
            otherwise="The memory's own filling outweighs the expansion.",
        ),
        Claim(
            "differences of whole steps, the memory carried along, end at least twice as close as "
            "order 0 with either rate",
            ", ".join(f"{1 / x:.3g} times" for x in carried),
            bool(np.all(carried <= 0.5)),
        ),
        Claim(
            "the larger the rate, the fewer records are trusted",
            ", ".join(f"{x:.0%}" for x in trust)
            + f"; clipped at {', '.join(f'{x:.0%}' for x in clipped)} of the records",
            bool(np.all(np.diff(trust) <= 0) and trust[-1] < trust[0]),
            otherwise="Neither rate leaves the range of the expansion, or both do.",
        ),
    ]
