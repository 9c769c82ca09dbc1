"""Ours: every optimizer of optax that is read, on real data, beside the flows of its own code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis.scale import Conditions
from analysis.studies import computed
from analysis.studies.igr.zoo import OPTIMIZERS
from analysis.studies.igr.zoo_runs import KEEP
from paper_figures import style
from paper_figures.figure import Claim, Drawing

TRUSTED = 0.3  # of h |F1|/|F0|
_KINDS = {
    "trees": "linear in the gradient",
    "terms": "element by element",
    "rule": "code without a formula",
}
_COLOURS = {"trees": style.GREEN, "terms": style.BLUE, "rule": style.RED}


def figure_zoo(conditions: Conditions) -> Drawing:
    """How far optimizers drift from the flows of order 0 and 1 that were read from their code."""
    found = {c.optimizer: r for c, r in computed("igr-zoo-runs", conditions).results.items()}
    table = pd.DataFrame([_row(name, seen) for name, seen in found.items()])

    picture = style.picture(style.PAGE, 0.6 + 0.17 * len(table))
    axes = picture.subplots()
    heights = np.arange(len(table))[::-1]
    for kind, rows in table.groupby("kind", sort=False):
        at, colour = heights[rows.index], _COLOURS[str(kind)]
        far, near = rows["order 0"].to_numpy(), rows["order 1"].to_numpy()
        axes.hlines(at, near, far, color=colour, linewidth=0.8, alpha=0.6)
        axes.plot(far, at, "o", color=colour, markerfacecolor="white")
        axes.plot(near, at, "o", color=colour, label=_KINDS[str(kind)])
    axes.plot([], [], "o", color=style.GREY, markerfacecolor="white", label="order 0")
    axes.plot([], [], "o", color=style.GREY, label="order 1")
    axes.set(xscale="log", xlabel="distance from the flow at the end, of the way travelled")
    axes.set_yticks(heights, [_label(str(r.optimizer), float(r.h)) for r in table.itertuples()])  # pyright: ignore[reportArgumentType]
    axes.grid(axis="x", alpha=0.3)
    picture.legend(loc="outside upper center", ncols=5)
    return Drawing(picture, table, tuple(_claims(table)))


def _label(name: str, h: float) -> str:
    star = "*" if OPTIMIZERS[name].jumps else ""  # its signs, maxima and conditions smoothed
    kept = f", {' and '.join(KEEP[name])} kept" if name in KEEP else ""
    return f"{name}{star}{kept}, $h = {h:g}$"


def _row(name: str, seen: Any) -> dict[str, Any]:
    by_order = dict(zip(seen["orders"].tolist(), seen["distance"], strict=True))
    way = float(seen["travelled"][-1])
    return {
        "optimizer": name,
        "kind": str(seen["kind"]),
        "h": float(seen["learning_rate"]),
        "order 0": float(by_order[0][-1]) / way,
        "order 1": float(by_order[1][-1]) / way,
        "h |F1| / |F0|": float(np.max(seen["correction"])),
    }


def _claims(table: pd.DataFrame) -> list[Claim]:
    claims = []
    for kind, rows in table.groupby("kind", sort=False):
        # A flow that left the finite numbers is no closer than anything.
        closer = rows["order 1"] < rows["order 0"]
        gain = (rows["order 0"] / rows["order 1"]).to_numpy()
        others = ", ".join(rows["optimizer"][~closer])
        claims.append(
            Claim(
                f"optimizers {_KINDS[str(kind)]}: each ends closer to the flow of order 1 than to "
                "that of order 0",
                f"{closer.sum()} of {len(rows)}; {np.nanmin(gain):.2g} to {np.nanmax(gain):.2g} "
                "times closer" + (f"; not {others}" if others else ""),
                bool(closer.all()),
                otherwise="The expansion does not help where a mode oscillates.",
            )
        )
    trusted = table[table["h |F1| / |F0|"] < TRUSTED]
    within = trusted["order 1"] < 0.01
    claims.append(
        Claim(
            f"where h |F1|/|F0| stays below {TRUSTED}, the flow of order 1 ends within 1 % of the "
            "way travelled",
            f"{within.sum()} of {len(trusted)}; at most {trusted['order 1'].max():.2%}",
            bool(within.all()) and len(trusted) > 0,
            otherwise="A rule with a sharp turn is hard to follow at any step.",
        )
    )
    return claims
