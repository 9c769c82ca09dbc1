"""Ours: gradient descent past the edge of stability, and the flows beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis.scale import Conditions
from analysis.studies import computed
from analysis.studies.igr.edge import FLOWS
from paper_figures import style
from paper_figures.figure import Claim, Drawing

LINES = {0: ("gradient flow", style.GREY, "--"), 1: ("modified flow", style.BLUE, ":"),
         "two-phase": ("two-phase", style.RED, "-"),
         "central": ("central", style.GREEN, "-")}  # fmt: skip


def figure_edge(conditions: Conditions) -> Drawing:
    """Loss, sharpness and distance by step, of the run and of four flows."""
    results = computed("igr-edge", conditions).results
    table = pd.concat([_table(cell, seen) for cell, seen in results.items()], ignore_index=True)
    seed = table["seed"].iloc[0]
    shown = table[table["seed"] == seed]

    picture = style.picture(style.PAGE, 2.8)
    panels = dict(zip(("loss", "h sharpness", "distance"), picture.subplots(1, 3), strict=True))
    for what, axes in panels.items():
        for label, colour, line in [("run", "black", "-"), *LINES.values()]:
            rows = shown[shown["flow"] == label]
            if what == "distance" and label == "run":
                continue
            axes.plot(rows["step"], rows[what], line, color=colour, label=label,
                      linewidth=2.2 if label == "run" else 1.2)  # fmt: skip
        axes.set(xlabel="step past the edge", ylabel=what.replace("h sh", "$h$ sh"))
    panels["h sharpness"].axhline(2, color=style.GREY, linewidth=0.8)
    panels["loss"].set_yscale("log")
    panels["distance"].set(yscale="log", ylim=(1e-6, 2))
    # Above the panels, where no curve runs.
    handles, labels = panels["h sharpness"].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return Drawing(picture, table, tuple(_claims(table)))


def _table(cell: Any, seen: Any) -> pd.DataFrame:
    parts = []
    nothing = np.full(seen["step"].shape, np.nan)
    for i, label in enumerate(["run", *(LINES[p][0] for p in FLOWS)]):
        parts.append(
            pd.DataFrame(
                {
                    "seed": cell.seed,
                    "flow": label,
                    "step": seen["step"],
                    "loss": seen["loss"][i],
                    "h sharpness": cell.learning_rate * seen["sharpness"][i],
                    "distance": nothing if i == 0 else seen["distance"][i - 1],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def _claims(table: pd.DataFrame) -> list[Claim]:
    last = table[table["step"] == table["step"].max()]
    ends = {s: part.set_index("flow") for s, part in last.groupby("seed")}
    shares = {
        flow: [float(e.loc[flow, "distance"] / e.loc["gradient flow", "distance"])
               for e in ends.values()]
        for flow in ("modified flow", "two-phase", "central")
    }  # fmt: skip
    losses = [float(e.loc["two-phase", "loss"] / e.loc["run", "loss"]) for e in ends.values()]
    held = [float(e.loc["run", "h sharpness"]) for e in ends.values()]
    past = [float(e.loc["gradient flow", "h sharpness"]) for e in ends.values()]
    best = np.minimum(shares["two-phase"], shares["central"])
    return [
        Claim(
            "gradient descent holds the sharpness at 2/h, to a twentieth; gradient flow goes on "
            "past it",
            f"h times it is {_many(held)} at the end, against {_many(past)}",
            bool(np.all(np.abs(np.array(held) / 2 - 1) < 0.05) and np.all(np.array(past) > 2.1)),
            otherwise="It swings about 2/h.",
        ),
        Claim(
            "the better of the two-phase flow and the central flow ends at a tenth of gradient "
            "flow's distance or less",
            f"two-phase at {_many(shares['two-phase'])} of it, central at "
            f"{_many(shares['central'])}",
            bool(np.all(best <= 0.1)),
        ),
        Claim(
            "the expansion in h does not help past the edge: the modified flow of order 1 stays at "
            "more than half of gradient flow's distance",
            f"at {_many(shares['modified flow'])} of it",
            bool(np.all(np.array(shares["modified flow"]) > 0.5)),
            otherwise="The sharp directions carry little of the distance.",
        ),
        Claim(
            "the two-phase flow predicts the loss averaged over the oscillation, to a tenth",
            f"{_many(losses)} of the run's at the end",
            bool(np.all(np.abs(np.array(losses) - 1) < 0.1)),
            otherwise="Its bursts come at other steps.",
        ),
    ]


def _many(values: list[float]) -> str:
    return " and ".join(f"{x:.3g}" for x in values)
