"""Ours: Muon beside its flows of order 0 and 1, and where the expansion stops helping."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis.scale import Conditions
from analysis.studies import computed
from paper_figures import style
from paper_figures.figure import Claim, Drawing
from paper_figures.igr.zoo import TRUSTED

_COLOURS = (style.GREEN, style.BLUE, style.RED, style.PURPLE)


def figure_muon(conditions: Conditions) -> Drawing:
    """The distance from both flows by step, and the size of h |F1| beside |F0|, by memory."""
    results = computed("igr-muon", conditions).results
    table = pd.DataFrame([_row(cell, seen) for cell, seen in results.items()])
    table = table.sort_values(["beta", "h"], ignore_index=True)

    picture = style.picture(style.PAGE, 2.8)
    left, right = picture.subplots(1, 2, sharex=True)
    for (beta, rows), colour in zip(table.groupby("beta"), _COLOURS, strict=False):
        left.plot(rows["h"], rows["order 0"], "--", color=colour, alpha=0.7)
        left.plot(rows["h"], rows["order 1"], "-o", color=colour, markersize=3)
        right.plot(rows["h"], rows["h |F1| / |F0|"], "-o", color=colour, markersize=3,
                   label=f"$\\beta = {beta:g}$")  # fmt: skip
    left.plot([], [], "--", color=style.GREY, label="order 0")
    left.plot([], [], "-", color=style.GREY, label="order 1")
    left.set(xscale="log", yscale="log", xlabel="$h$",
             ylabel="distance at the end,\nof the way travelled")  # fmt: skip
    left.legend()
    right.axhspan(TRUSTED, 1e3, color=style.GREY, alpha=0.2, linewidth=0)
    largest = float(table["h |F1| / |F0|"].max())
    right.set(yscale="log", xlabel="$h$", ylabel="$h\\,|F_1| / |F_0|$",
              ylim=(None, 2 * max(largest, TRUSTED)))  # fmt: skip
    right.legend(title="grey: not trusted", loc="upper left", bbox_to_anchor=(0.0, 0.72))
    steps = sorted(table["h"].unique())
    left.set_xticks(steps, [f"{h:g}" for h in steps])
    left.set_xticks([], minor=True)
    return Drawing(picture, table, tuple(_claims(table)))


def leaves_the_range(rows: pd.DataFrame) -> float:
    """The step at which h |F1|/|F0| reaches what is trusted, between those measured."""
    sizes = np.log(rows["h |F1| / |F0|"].to_numpy())
    steps = np.log(rows["h"].to_numpy())
    over = np.flatnonzero(sizes >= np.log(TRUSTED))
    if not over.size:
        return float("inf")
    i = max(int(over[0]), 1)
    share = (np.log(TRUSTED) - sizes[i - 1]) / (sizes[i] - sizes[i - 1])
    return float(np.exp(steps[i - 1] + share * (steps[i] - steps[i - 1])))


def _row(cell: Any, seen: Any) -> dict[str, Any]:
    by_order = dict(zip(seen["orders"].tolist(), seen["distance"], strict=True))
    way = float(seen["travelled"][-1])
    return {
        "beta": cell.beta,
        "h": cell.learning_rate,
        "order 0": float(by_order[0][-1]) / way,
        "order 1": float(by_order[1][-1]) / way,
        "h |F1| / |F0|": float(seen["correction"][0]),
    }


def _claims(table: pd.DataFrame) -> list[Claim]:
    trusted = table[table["h |F1| / |F0|"] < TRUSTED]
    closer = trusted["order 1"] < trusted["order 0"]
    ends = {float(beta): leaves_the_range(rows) for beta, rows in table.groupby("beta")}  # pyright: ignore[reportArgumentType]
    falling = list(ends.values())
    return [
        Claim(
            f"where h |F1|/|F0| is below {TRUSTED}, Muon ends closer to the flow of order 1 than "
            "to that of order 0",
            f"at {closer.sum()} of {len(trusted)} pairs of step and memory",
            bool(closer.all()) and len(trusted) > 0,
            otherwise="Its Newton-Schulz iteration turns sharply at small singular values.",
        ),
        Claim(
            "the longer Muon's memory, the smaller the step at which its expansion stops being "
            "valid",
            ", ".join(f"h = {h:.2g} at beta = {beta:g}" for beta, h in ends.items()),
            bool(np.all(np.diff(falling) < 0)),
            otherwise="The gradient's own change outweighs the memory.",
        ),
    ]
